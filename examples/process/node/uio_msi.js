// A UIO MSI-X driver that keeps every clause, as a process: the entry points of docs/uio_msi.md over wire.js.
//
// Callbacks and remove exclude one another by a mutex of the module, and a callback that comes too late finds the device
// gone. `--defect ID` turns on one of three defects of the suite's zoo.
"use strict";

const { serve } = require("./wire.js");

const EPERM = 1, EIO = 5, ENOMEM = 12, EFAULT = 14, ENODEV = 19, EINVAL = 22, ENOTTY = 25, ENOSPC = 28, ERANGE = 34;
const UIO_MSI_IRQ_SET = 0x40084987;
const MAX_MSIX_VECTORS = 64, MAX_UIO_MAPS = 5, MAX_UIO_PORT_REGIONS = 5, PCI_BARS = 6, PAGE_SIZE = 0x1000;
const UIO_IRQ_CUSTOM = -1, UIO_MEM_PHYS = 1, UIO_PORT_X86 = 1;
const IRQF_SHARED = 0x80, IRQ_NOTCONNECTED = 0x80000000, IRQ_NONE = 0, IRQ_HANDLED = 1;
const IORESOURCE_IO = 0x100, IORESOURCE_MEM = 0x200, CAP_SYS_RAWIO = 17;
const PCI_COMMAND = 0x04, PCI_COMMAND_INTX_DISABLE = 0x0400;
const PCI_CAP_ID_MSIX = 0x11, PCI_MSIX_TABLE = 4, PCI_MSIX_PBA = 8, PCI_MSIX_BIR = 7;

const STATE_MUTEX = 0x100; // static mutex of the module: it outlives the device
const SIZEOF_DEVICE = 0x400, SIZEOF_CONTEXT = 0x10;

const DEFECTS = ["UIO-D01", "UIO-D05", "UIO-L05"];
const defect = process.argv[2] === "--defect" ? process.argv[3] : null;
if (process.argv.length > 2 && !DEFECTS.includes(defect)) {
  console.error(`usage: uio_msi.js [--defect ${DEFECTS.join("|")}]`);
  process.exit(2);
}

/** First byte of the page in which an address lies; addresses have up to 64 bits. */
const pageOf = (address) => BigInt(address) & ~BigInt(PAGE_SIZE - 1);
const pageAfter = (address) => pageOf(BigInt(address) + BigInt(PAGE_SIZE - 1));

class UioMsi {
  static hello = {
    name: "uio_msi.js",
    subsystem: "uio_msi",
    profile: "upstream",
    capabilities: ["compat", "core-4.1", "intx", "irqcontrol"],
    entries: ["probe", "remove", "open", "release", "ioctl", "compat_ioctl", "irqcontrol", "handler"],
  };

  constructor() {
    this.forget();
  }

  /** No device. */
  forget() {
    this.device = 0;
    this.bound = false;
    this.openCount = 0;
    this.msix = false;
    this.maxVectors = 0;
    this.irq = 0;
    this.contexts = 0; // the context table: the dev_id of a vector is the address of its entry
    this.names = [];
    this.triggers = []; // eventfd context by vector, 0 while it has none
    this.irqs = []; // irq number by vector, of the current enabling
    this.wasMasked = false;
  }

  async locked(env, work) {
    await env.call("mutex_lock", STATE_MUTEX);
    const result = await work();
    await env.call("mutex_unlock", STATE_MUTEX);
    return result;
  }

  // -- probe and remove

  async probe(env, irq, hdrType, _isVirtfn) {
    if (hdrType & 0x7f) return -ENODEV;
    const device = await env.call("kzalloc", SIZEOF_DEVICE);
    if (!device) return -ENOMEM;
    let err = await env.call("pci_enable_device");
    if (!err) {
      err = await env.call("pci_request_regions", "uio_msi");
      if (!err) {
        err = (await this.setUp(env, irq)) || (await this.register(env, device));
        if (!err) return 0;
        await env.call("pci_release_regions");
      }
      await env.call("pci_disable_device");
    }
    await env.call("kfree", device);
    this.forget();
    return err;
  }

  /** Choose the mode and allocate its tables. */
  async setUp(env, irq) {
    this.irq = irq;
    this.wasMasked = ((await env.call("pci_read_config", PCI_COMMAND, 2)) & PCI_COMMAND_INTX_DISABLE) !== 0;
    const count = await env.call("pci_msix_vec_count");
    this.msix = count > 0 && (await this.msixWorks(env));
    if (this.msix) this.maxVectors = Math.min(count, MAX_MSIX_VECTORS);
    else if (irq && irq !== IRQ_NOTCONNECTED && (await env.call("pci_intx_mask_supported"))) this.maxVectors = 1;
    else return -EINVAL;
    return this.allocateTables(env);
  }

  /** Try one vector: a bus or a host may forbid what the capability promises. */
  async msixWorks(env) {
    if ((await env.call("pci_alloc_irq_vectors", 1, 1)) < 0) return false;
    await env.call("pci_free_irq_vectors");
    return true;
  }

  async allocateTables(env) {
    if (defect === "UIO-D05") {
      const entries = this.msix ? [] : null;
      for (let vector = 0; vector < this.maxVectors; vector++) entries[vector] = vector;
    }
    this.contexts = await env.call("kcalloc", this.maxVectors, SIZEOF_CONTEXT);
    if (!this.contexts) return -ENOMEM;
    this.triggers = new Array(this.maxVectors).fill(0);
    for (let vector = 0; vector < this.maxVectors; vector++) {
      const name = await env.call("kasprintf", `uio_msi[${vector}](0000:00:04.0)`);
      if (!name) {
        await this.freeTables(env);
        return -ENOMEM;
      }
      this.names.push(name);
    }
    return 0;
  }

  async freeTables(env) {
    while (this.names.length) await env.call("kfree", this.names.pop());
    await env.call("kfree", this.contexts);
    this.contexts = 0;
  }

  async register(env, device) {
    this.device = device;
    await env.call("pci_set_drvdata", device);
    this.bound = true;
    const bars = await this.bars(env);
    const maps = await this.maps(env, bars);
    const ports = bars.filter((bar) => bar.flags & IORESOURCE_IO).slice(0, MAX_UIO_PORT_REGIONS);
    const err = await env.call("uio_register_device", "uio_msi", "1.0", UIO_IRQ_CUSTOM, true, maps,
      ports.map((bar) => [`BAR${bar.number}`, bar.start, bar.size, UIO_PORT_X86]));
    if (err) {
      this.bound = false;
      await env.call("pci_set_drvdata", 0);
      await this.freeTables(env);
    }
    return err;
  }

  async bars(env) {
    const bars = [];
    for (let number = 0; number < PCI_BARS; number++) {
      const flags = await env.call("pci_resource_flags", number);
      if (!flags) continue;
      const start = await env.call("pci_resource_start", number);
      const size = await env.call("pci_resource_len", number);
      if (start && size) bars.push({ number, flags, start, size });
    }
    return bars;
  }

  /** Memory BARs in pages; those with the MSI-X table stay private. */
  async maps(env, bars) {
    const memory = bars
      .filter((bar) => bar.flags & IORESOURCE_MEM)
      .map((bar) => ({
        ...bar, first: pageOf(bar.start), end: pageAfter(BigInt(bar.start) + BigInt(bar.size)),
      }));
    const table = await this.tableBars(env);
    const isPrivate = (bar) =>
      memory.some((other) => table.includes(other.number) && bar.first < other.end && other.first < bar.end);
    return memory
      .filter((bar) => !isPrivate(bar))
      .slice(0, MAX_UIO_MAPS)
      .map((bar) => [`BAR${bar.number}`, bar.first, BigInt(bar.start) - bar.first, bar.end - bar.first, UIO_MEM_PHYS]);
  }

  /** BARs in which the MSI-X table and the pending bits lie. */
  async tableBars(env) {
    const cap = await env.call("pci_find_capability", PCI_CAP_ID_MSIX);
    if (!cap) return [];
    const table = await env.call("pci_read_config", cap + PCI_MSIX_TABLE, 4);
    const pending = await env.call("pci_read_config", cap + PCI_MSIX_PBA, 4);
    return [table & PCI_MSIX_BIR, pending & PCI_MSIX_BIR];
  }

  /** Unbind: the core will not call release any more, so whatever is mapped goes now. */
  async remove(env) {
    await this.locked(env, async () => {
      if (this.openCount) await this.shutDown(env);
      this.bound = false;
    });
    await env.call("uio_unregister_device");
    if (!this.msix) await env.call("pci_intx", this.wasMasked ? 0 : 1);
    await this.freeTables(env);
    await env.call("pci_set_drvdata", 0);
    await env.call("pci_release_regions");
    await env.call("pci_disable_device");
    await env.call("kfree", this.device);
    this.forget();
  }

  // -- open and release

  async open(env) {
    if (!(await env.call("capable", CAP_SYS_RAWIO))) return -EPERM;
    return this.locked(env, async () => {
      if (!this.bound) return -ENODEV;
      const err = this.openCount ? 0 : await this.switchOn(env);
      if (!err || defect === "UIO-D01") this.openCount++;
      return err;
    });
  }

  async switchOn(env) {
    await env.call("pci_set_master");
    if (!this.msix) {
      await env.call("pci_intx", 0); // nobody serves the shared line until the first set
      this.irqs = [this.irq];
      return 0;
    }
    const vectors = [...Array(this.maxVectors).keys()];
    const count = await env.call("pci_enable_msix", vectors);
    if (count) {
      await env.call("pci_clear_master");
      return count < 0 ? count : -ENOSPC;
    }
    for (const vector of vectors) this.irqs.push(await env.call("pci_irq_vector", vector));
    return 0;
  }

  async release(env) {
    return this.locked(env, async () => {
      if (this.bound && --this.openCount === 0) await this.shutDown(env);
      return 0;
    });
  }

  /** Unmap every vector, then switch MSI-X and bus mastering off. */
  async shutDown(env) {
    for (let vector = 0; vector < this.maxVectors; vector++) {
      if (this.triggers[vector]) await this.detach(env, vector);
    }
    if (this.msix) await env.call("pci_disable_msix");
    this.irqs = [];
    this.openCount = 0;
    await env.call("pci_clear_master");
  }

  // -- the ioctl

  async ioctl(env, cmd, arg) {
    if (cmd !== UIO_MSI_IRQ_SET) return -ENOTTY;
    const data = Buffer.from(await env.call("copy_from_user", arg, 8), "hex");
    if (data.length < 8) return -EFAULT;
    const [vector, fd] = [data.readUInt32LE(0), data.readInt32LE(4)];
    return this.locked(env, async () => (this.bound ? this.set(env, vector, fd) : -ENODEV));
  }

  /** The layout is the same for 32-bit callers. */
  async compat_ioctl(env, cmd, arg) {
    return this.ioctl(env, cmd, arg);
  }

  async set(env, vector, fd) {
    if (vector >= this.maxVectors) {
      await env.call("dev_err_ratelimited", `no vector ${vector}`);
      return -ERANGE;
    }
    if (fd < 0) {
      if (this.triggers[vector]) await this.detach(env, vector);
      return 0;
    }
    if (!this.irqs.length) return -EIO;
    const trigger = await env.call("eventfd_ctx_fdget", fd);
    if (trigger < 0) return trigger;
    return this.msix ? this.attachMsix(env, vector, trigger) : this.attachIntx(env, trigger);
  }

  /** Take the old handler away, install the new one; put the old one back when that is refused. */
  async attachMsix(env, vector, trigger) {
    const irq = this.irqs[vector], old = this.triggers[vector];
    const devId = this.contexts + vector * SIZEOF_CONTEXT;
    if (old) await env.call("free_irq", irq, devId);
    // A reset may have cleared the table, and the handler may run before request_irq returns.
    await env.call("pci_write_msi_msg", irq);
    this.triggers[vector] = trigger;
    const err = await env.call("request_irq", irq, 0, this.names[vector], devId);
    if (!err) {
      if (old) await env.call("eventfd_ctx_put", old);
      return 0;
    }
    await env.call("eventfd_ctx_put", trigger);
    this.triggers[vector] = old;
    if (old && (await env.call("request_irq", irq, 0, this.names[vector], devId))) {
      this.triggers[vector] = 0;
      await env.call("eventfd_ctx_put", old);
    }
    return err;
  }

  /** Swap the eventfd under the handler, or install it; then unmask. */
  async attachIntx(env, trigger) {
    const old = this.triggers[0];
    this.triggers[0] = trigger;
    if (old) {
      await env.call("synchronize_irq", this.irq);
      await env.call("eventfd_ctx_put", old);
    }
    // Before request_irq, inside which a level that is up already signals.
    await env.call("pci_intx", 1);
    const err = old ? 0 : await env.call("request_irq", this.irq, IRQF_SHARED, this.names[0], this.contexts);
    if (err) {
      await env.call("pci_intx", 0);
      this.triggers[0] = 0;
      await env.call("eventfd_ctx_put", trigger);
    }
    return err;
  }

  async detach(env, vector) {
    if (!this.msix) await env.call("pci_intx", 0); // from here on nobody serves the line
    await env.call("free_irq", this.irqs[vector], this.contexts + vector * SIZEOF_CONTEXT);
    await env.call("eventfd_ctx_put", this.triggers[vector]);
    this.triggers[vector] = 0;
  }

  // -- interrupts

  async irqcontrol(env, on) {
    return this.locked(env, async () => {
      if (!this.bound || !this.openCount) return -ENODEV;
      if (!this.msix && this.triggers[0]) await env.call("pci_intx", on || defect === "UIO-L05" ? 1 : 0);
      return 0;
    });
  }

  async handler(env, _irq, devId) {
    if (this.msix) {
      await env.call("eventfd_signal", this.triggers[(devId - this.contexts) / SIZEOF_CONTEXT]);
      return IRQ_HANDLED;
    }
    const command = await env.call("pci_read_config", PCI_COMMAND, 2);
    if (command & PCI_COMMAND_INTX_DISABLE || !(await env.call("pci_check_and_mask_intx"))) return IRQ_NONE;
    await env.call("eventfd_signal", this.triggers[0]);
    return IRQ_HANDLED;
  }
}

serve(UioMsi);
