# A ROM of 64 KiB that takes requests over COM1 and says what the processor did: see machine.py for the requests.
# It calls and returns nowhere, so that shadow stacks may be on; where it may be jumped to there is an ENDBR64.

        .set    BASE,   0xF0000         # where the ROM is seen below 1 MiB
        .set    TABLES, 0x10000         # PML4, PDPT, PD, PDPT and PD of the top
        .set    IDT,    0x18000
        .set    LINE,   0x1A000         # the request and the reply
        .set    AREA,   0x20000         # of XSAVES
        .set    STACK,  0x80000
        .set    COM1,   0x3F8
        .set    CR4_CET, 1 << 23
        .set    CR0_WP, 1 << 16

        .code16
        .globl  _start
_start: cli
        cld
        lgdtl   %cs:(gdt_pointer - _start)
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $0x08, $BASE + protected - _start

        .code32
protected:
        mov     $0x10, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $TABLES, %edi           # five empty tables
        xor     %eax, %eax
        mov     $0x5000 / 4, %ecx
        rep stosl
        movl    $TABLES + 0x1000 + 3, TABLES
        movl    $TABLES + 0x3000 + 3, TABLES + 511 * 8
        movl    $TABLES + 0x2000 + 3, TABLES + 0x1000
        movl    $TABLES + 0x4000 + 3, TABLES + 0x3000 + 511 * 8
        mov     $TABLES + 0x2000, %edi  # 1 GiB as it is, in pages of 2 MiB
        mov     $0x83, %eax
        mov     $512, %ecx
1:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        loop    1b
        # SSP is 0 at first, so what a fault pushes on the shadow stack lies at the top of the addresses: the last
        # 1 GiB is shadow-stack pages, not writable but dirty, each of them the 2 MiB of memory at 4 MiB.
        mov     $TABLES + 0x4000, %edi
        mov     $512, %ecx
2:      movl    $0x400000 + 0xE1, (%edi)
        add     $8, %edi
        loop    2b
        mov     $0x20, %eax             # PAE
        mov     %eax, %cr4
        mov     $TABLES, %eax
        mov     %eax, %cr3
        mov     $0xC0000080, %ecx       # EFER.LME
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        ljmp    $0x18, $BASE + long - _start

        .code64
long:   mov     $STACK, %esp
        lea     stubs(%rip), %rsi       # 64 gates, each to its stub: with an ENDBR64, and without
        mov     $IDT, %edi
        mov     $64, %ecx
3:      mov     %esi, %eax
        and     $0xFFFF, %eax
        or      $0x180000, %eax
        mov     %eax, (%rdi)
        mov     %esi, %eax
        and     $0xFFFF0000, %eax
        or      $0x8E00, %eax
        mov     %eax, 4(%rdi)
        movq    $0, 8(%rdi)
        add     $16, %rdi
        add     $16, %rsi
        dec     %ecx
        jnz     3b
        lidt    plain_idt(%rip)

        mov     $COM1 + 3, %dx          # 8 data bits, 115200, FIFOs on
        mov     $0x80, %al
        out     %al, %dx
        mov     $COM1, %dx
        mov     $1, %al
        out     %al, %dx
        mov     $COM1 + 1, %dx
        xor     %al, %al
        out     %al, %dx
        mov     $COM1 + 3, %dx
        mov     $3, %al
        out     %al, %dx
        mov     $COM1 + 2, %dx
        mov     $7, %al
        out     %al, %dx
        mov     $COM1 + 4, %dx
        mov     $3, %al
        out     %al, %dx
        mov     %cr4, %rax              # x87, SSE and XSAVE, where the processor has it
        or      $0x600, %rax
        mov     %rax, %cr4
        mov     $1, %eax
        cpuid
        bt      $26, %ecx
        jnc     4f
        mov     %cr4, %rax
        or      $0x40000, %rax
        mov     %rax, %cr4
        xor     %ecx, %ecx
        xor     %edx, %edx
        mov     $3, %eax
        xsetbv
4:      xor     %r9d, %r9d
        movb    $0xFF, LINE + 16        # the first reply: it is up
        movq    $0, LINE + 17
        movq    $0, LINE + 25
        jmp     reply

# -- the loop

        # A request is a byte, of which bits 3:0 say what is asked; bit 4: a 32-bit argument follows, bit 5: a 64-bit
        # one. A reply is CR0.WP and CR4.CET in bits 0 and 1, the vector of a fault, and 8 bytes more if the request
        # had bit 6, 16 if it had bit 7.

        .macro  GET where, count
        mov     $\where, %edi
        mov     $\count, %ecx
5:      mov     $COM1 + 5, %dx
        in      %dx, %al
        test    $1, %al
        jz      5b
        mov     $COM1, %dx
        in      %dx, %al
        mov     %al, (%rdi)
        inc     %rdi
        dec     %ecx
        jnz     5b
        .endm

next:   GET     LINE, 1
        movzbl  LINE, %r9d
        test    $0x10, %r9d
        jz      1f
        GET     LINE + 4, 4
1:      test    $0x20, %r9d
        jz      1f
        GET     LINE + 8, 8
1:      movb    $0, LINE + 16
        movq    $0, LINE + 17
        movq    $0, LINE + 25
        lea     faulted(%rip), %r15     # where a fault resumes
        xor     %r14d, %r14d
        mov     %cr4, %rax              # ENDBR64 only while CET is on: it is not to be seen else
        lidt    plain_idt(%rip)
        test    $CR4_CET, %eax
        jz      9f
        lidt    tracked_idt(%rip)
9:      mov     %r9d, %eax
        and     $0xF, %eax
        mov     LINE + 4, %r12d         # the 32-bit argument
        mov     LINE + 8, %r13          # the 64-bit argument
        cmp     $1, %eax
        je      do_rdmsr
        cmp     $2, %eax
        je      do_wrmsr
        cmp     $3, %eax
        je      do_cpuid
        cmp     $4, %eax
        je      do_cr4
        cmp     $5, %eax
        je      do_cr0
        cmp     $6, %eax
        je      do_read
        cmp     $7, %eax
        je      do_xsaves
        cmp     $8, %eax
        je      do_xrstors
        cmp     $9, %eax
        je      do_load
        cmp     $10, %eax
        je      do_store
        cmp     $11, %eax
        je      do_clean
        cmp     $12, %eax
        je      do_endbr
        movb    $0xFE, LINE + 16        # no such request
        jmp     reply

do_rdmsr:
        mov     %r12d, %ecx
        rdmsr
        mov     %eax, LINE + 17
        mov     %edx, LINE + 21
        jmp     reply
do_wrmsr:
        mov     %r12d, %ecx
        mov     %r13d, %eax
        mov     %r13, %rdx
        shr     $32, %rdx
        mov     %cr4, %rbx
        test    $CR4_CET, %ebx
        jnz     1f
        wrmsr
        jmp     reply
1:      wrmsr
        endbr64
        jmp     reply
do_cpuid:
        mov     %r12d, %eax
        mov     %r13d, %ecx
        cpuid
        mov     %eax, LINE + 17
        mov     %ebx, LINE + 21
        mov     %ecx, LINE + 25
        mov     %edx, LINE + 29
        jmp     reply
do_cr4: test    $CR4_CET, %r13d
        jnz     1f
        mov     %r13, %cr4
        jmp     reply
1:      mov     %r13, %cr4
        endbr64
        jmp     reply
do_cr0: mov     %r13, %cr0
        jmp     reply
do_read:
        mov     %cr0, %rax
        mov     %rax, LINE + 17
        mov     %cr4, %rax
        mov     %rax, LINE + 25
        jmp     reply
do_xsaves:
        xor     %eax, %eax
        mov     $AREA, %edi
        mov     $0x80, %ecx
        rep stosq
        mov     %r12d, %eax
        xor     %edx, %edx
        xsaves64 AREA
        jmp     reply
do_xrstors:
        mov     %r12d, %eax
        xor     %edx, %edx
        xrstors64 AREA
        jmp     reply
do_endbr:
        endbr64
        jmp     reply
do_load:
        mov     AREA(%r12), %rax
        mov     %rax, LINE + 17
        jmp     reply
do_store:
        mov     %r13, AREA(%r12)
        jmp     reply
do_clean:                               # everything back to what it was at first; what is not there faults
        mov     %cr4, %rax
        and     $~CR4_CET, %rax
        mov     %rax, %cr4
        lidt    plain_idt(%rip)
        mov     %cr0, %rax
        and     $~CR0_WP, %rax
        mov     %rax, %cr0
        lea     cleared(%rip), %rbx
6:      lea     7f(%rip), %r15
        movzwl  (%rbx), %ecx
        xor     %eax, %eax
        xor     %edx, %edx
        wrmsr
7:      add     $2, %rbx
        cmpw    $0, (%rbx)
        jne     6b
        xor     %r14d, %r14d
        jmp     reply

faulted:
        mov     $STACK, %esp
        mov     %r14b, LINE + 16
reply:  mov     %cr0, %rax
        shr     $16, %eax
        and     $1, %eax
        mov     %cr4, %rbx
        shr     $22, %ebx
        and     $2, %ebx
        or      %ebx, %eax
        mov     %al, LINE + 15
        mov     $LINE + 15, %esi
        mov     $2, %ecx
        test    $0x40, %r9d
        jz      1f
        mov     $10, %ecx
1:      test    $0x80, %r9d
        jz      8f
        mov     $18, %ecx
8:      mov     $COM1 + 5, %dx
        in      %dx, %al
        test    $0x20, %al
        jz      8b
        mov     (%rsi), %al
        mov     $COM1, %dx
        out     %al, %dx
        inc     %rsi
        dec     %ecx
        jnz     8b
        jmp     next

cleared:
        .word   0x6A0, 0x6A2, 0x6A4, 0x6A5, 0x6A6, 0x6A7, 0x6A8, 0xDA0, 0

# -- stubs of exceptions: note the vector, and go where r15 says

        .balign 16
stubs:
        .set    vector, 0
        .rept   32
        .balign 16
        endbr64
        movb    $vector, %r14b
        jmp     common
        .set    vector, vector + 1
        .endr
        .set    vector, 0
        .rept   32
        .balign 16
        movb    $vector, %r14b
        jmp     plain
        .set    vector, vector + 1
        .endr
        .balign 16
common: lea     faulted(%rip), %rax     # no indirect branch: that would want one more ENDBR64
        cmp     %rax, %r15
        je      faulted
        jmp     7b
plain:  jmp     *%r15

        .balign 16
gdt:    .quad   0
        .quad   0x00CF9B000000FFFF      # 0x08: code, 32 bits
        .quad   0x00CF93000000FFFF      # 0x10: data
        .quad   0x00AF9B000000FFFF      # 0x18: code, 64 bits
gdt_pointer:
        .word   . - gdt - 1
        .long   BASE + gdt - _start
tracked_idt:
        .word   32 * 16 - 1
        .quad   IDT
plain_idt:
        .word   32 * 16 - 1
        .quad   IDT + 32 * 16

        .org    0xFFF0
        .code16
        ljmp    $0xF000, $0
        .org    0x10000
