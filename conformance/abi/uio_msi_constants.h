/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that uio_msi.h speaks of; errnos are those of <errno.h>. */
#ifndef CONFORMANCE_UIO_MSI_CONSTANTS_H
#define CONFORMANCE_UIO_MSI_CONSTANTS_H

/* -- The ioctl -- */

#define UIO_MSI_IRQ_SET 0x40084987
/*
 * _IOW('I', 0x87, struct uio_msi_irq_set) where the write bit is 30: x86, arm, riscv, s390.
 */
#define IRQ_SET_SIZE 8
/* Bytes of struct uio_msi_irq_set: u32 vec, s32 fd, native byte order. */
#define COMMAND_MASK 0xFFFFFFFFU
/* A command is 32 bits wide; the system call drops the rest. */

/* -- Limits and constants of the kernel -- */

#define MAX_MSIX_VECTORS 64
#define MAX_UIO_MAPS 5
#define MAX_UIO_PORT_REGIONS 5
#define PCI_BARS 6
#define PAGE_SIZE 0x1000
#define EVENTFD_MAX 0xFFFFFFFFFFFFFFFEULL
/*
 * Largest counter that user space can reach; the harness's signals saturate there (the kernel's own
 * one later).
 */
#define ERESTARTSYS 512
#define EPROBE_DEFER 517
#define ENOTSUPP 524
/* Codes that user space must never see. */
#define UIO_IRQ_CUSTOM (-1)
#define UIO_IRQ_NONE 0
#define UIO_MEM_PHYS 1
#define UIO_PORT_X86 1
#define IRQF_SHARED 0x80
#define IRQ_NOTCONNECTED 0x80000000U
/* pdev->irq of a function whose INTx pin leads nowhere; 0 says the same. */
#define IRQ_NONE 0
#define IRQ_HANDLED 1
#define IORESOURCE_IO 0x100
#define IORESOURCE_MEM 0x200
#define CAP_SYS_RAWIO 17
#define PCI_COMMAND 4
#define PCI_COMMAND_MASTER 4
#define PCI_COMMAND_INTX_DISABLE 0x400
#define PCI_STATUS 6
#define PCI_STATUS_INTERRUPT 8
#define PCI_HEADER_TYPE 0xE
#define PCI_HEADER_TYPE_BRIDGE 1
#define PCI_HEADER_TYPE_CARDBUS 2
#define PCI_CAPABILITY_LIST 0x34
#define PCI_CAP_ID_MSIX 0x11
#define PCI_MSIX_FLAGS 2
/*
 * Offset within the capability: bits 10:0 table size minus 1, bit 14 function mask, bit 15 enable.
 */
#define PCI_MSIX_FLAGS_QSIZE 0x7FF
#define PCI_MSIX_FLAGS_ENABLE 0x8000
#define PCI_MSIX_TABLE 4
/* Offset within the capability: bits 2:0 BAR, bits 31:3 offset of the table. */
#define PCI_MSIX_PBA 8
/* Offset within the capability: bits 2:0 BAR, bits 31:3 offset of the pending bits. */
#define PCI_MSIX_BIR 7
#define PCI_MSIX_OFFSET 0xFFFFFFF8U
#define PCI_MSIX_ENTRY_SIZE 16

#endif
