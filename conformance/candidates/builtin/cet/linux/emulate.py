"""emulate.c and kvm_task_switch: what the emulator refuses while CET is on."""

from __future__ import annotations

from typing import NamedTuple

from conformance.candidates.builtin.cet.linux.msrs import Msrs
from conformance.candidates.builtin.cet.linux.state import Vcpu
from conformance.specs.cet import constants as k

SHSTK = 1 << k.SH_STK_EN
ENDBR = 1 << k.ENDBR_EN


class Opcode(NamedTuple):
    """The flags of an entry of the opcode tables that matter here."""

    near: bool
    """NearBranch: privilege does not change."""
    ibt: bool
    """is_ibt_instruction: an indirect branch."""
    shadow_stack: bool
    """ShadowStack: moves SSP, or compares against the shadow stack."""


OPCODES = {
    "ret": Opcode(near=True, ibt=False, shadow_stack=True),
    "indirect_jmp": Opcode(near=True, ibt=True, shadow_stack=False),
    "indirect_call": Opcode(near=True, ibt=True, shadow_stack=True),
    "far_jmp": Opcode(near=False, ibt=True, shadow_stack=False),
}
"""Every far JMP and CALL is indirect for IBT."""


class Emulator(Msrs):
    """x86_decode_insn, em_jmp_far, and emulator_task_switch's caller."""

    def emulate(self, vcpu: int, instruction: str, user: bool) -> int:
        """x86_emulate_instruction, or kvm_task_switch, which is no instruction."""
        part = self.vcpus[vcpu]
        active = bool(self.port.read_cr(vcpu, 4) >> k.CR4_CET & 1)
        if instruction == "task_switch":
            return self.kvm_task_switch(part, active)
        opcode = OPCODES.get(instruction)
        if opcode is None or not active:
            return k.EMULATED
        return self.emulate_branch(part, opcode, user)

    def emulate_branch(self, vcpu: Vcpu, opcode: Opcode, user: bool) -> int:
        """A far transfer looks at both privilege levels, since its target's is not known when it is decoded."""
        u_cet = s_cet = 0
        if user or not opcode.near:
            failed, u_cet = self.emulator_get_msr(vcpu, k.U_CET)
            if failed:
                return k.UNHANDLEABLE
        if not user or not opcode.near:
            failed, s_cet = self.emulator_get_msr(vcpu, k.S_CET)
            if failed:
                return k.UNHANDLEABLE
        if (u_cet | s_cet) & SHSTK and opcode.shadow_stack:
            return k.UNHANDLEABLE
        if (u_cet | s_cet) & ENDBR and opcode.ibt:
            return k.UNHANDLEABLE
        return k.EMULATED if opcode.near else self.em_jmp_far(vcpu, u_cet if user else s_cet)

    def em_jmp_far(self, vcpu: Vcpu, cet: int) -> int:
        """To compatibility mode, with shadow stacks on at this CPL: SSP must be below 4 GiB."""
        if not cet & SHSTK:
            return k.EMULATED
        failed, ssp = self.get_msr(vcpu, k.INTERNAL_GUEST_SSP, True)
        if failed:
            return k.UNHANDLEABLE
        return k.EMULATED_GP if ssp >> 32 else k.EMULATED

    def kvm_task_switch(self, vcpu: Vcpu, active: bool) -> int:
        """Refused while either privilege level has CET on: both may be concerned."""
        if not active:
            return k.EMULATED
        u_failed, u_cet = self.emulator_get_msr(vcpu, k.U_CET)
        s_failed, s_cet = self.emulator_get_msr(vcpu, k.S_CET)
        if u_failed or s_failed or (u_cet | s_cet) & (SHSTK | ENDBR):
            return k.UNHANDLEABLE
        return k.EMULATED

    def emulator_get_msr(self, vcpu: Vcpu, index: int) -> tuple[int, int]:
        """An implicit access: no filter applies."""
        return self.get_msr(vcpu, index, False)
