"""Out beneath Python: system calls by number, foreign calling conventions, machine code, other programs.

The machine code is written out here, for x86_64, and made in memory: no compiled file is shipped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import MACHINE, Refused, Skip, call, ipv4_address

_X32 = 0x40000000
_MAP_32BIT = 0x40
# A program starts within 50 ms; this is for a machine that swaps.
_SECONDS = 8.0


def by_number(aims: Aims) -> str:
    """socket() and connect() by their numbers."""
    out = call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    call("connect", out, ipv4_address(*aims.tcp), 16)
    os.write(out, f"{aims.nonce}\n".encode())
    return "connected"


def by_high_bits(aims: Aims) -> str:
    """The same, with bits above the 32 that the kernel looks at: a filter that compares all 64 takes it for another."""
    out = call("socket", socket.AF_INET | 1 << 32, socket.SOCK_STREAM | 1 << 32, 0)
    call("connect", out | 1 << 32, ipv4_address(*aims.tcp), 16)
    os.write(out, f"{aims.nonce}\n".encode())
    return "connected"


def by_32_bit_calls(aims: Aims) -> str:
    """Calls of 32-bit programs, which have other numbers."""
    _needs_x86_64()
    said = f"{aims.nonce}\n".encode()
    # Below 4 GiB, where addresses of the 32-bit convention reach.
    page = mmap.mmap(
        -1,
        mmap.PAGESIZE,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT,
        prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
    )
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    address_at, said_at = at + 1024, at + 2048
    page[1024:1040] = ipv4_address(*aims.tcp)
    page[2048 : 2048 + len(said)] = said
    say = _load(eax=4, ecx=said_at, edx=len(said)) + _INT_80
    connect = bytes.fromhex("89c3") + _load(eax=362, ecx=address_at, edx=16) + _INT_80  # mov ebx, eax
    code = bytes.fromhex("53")  # push rbx
    code += _load(eax=359, ebx=socket.AF_INET, ecx=socket.SOCK_STREAM, edx=0) + _INT_80
    code += _IF_FAILED + bytes([len(connect) + len(_IF_FAILED) + 1 + len(say)]) + connect
    code += _IF_FAILED + bytes([len(say)]) + say
    code += bytes.fromhex("4898 5b c3")  # cdqe; pop rbx; ret
    page[: len(code)] = code
    result = ctypes.CFUNCTYPE(ctypes.c_long)(at)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return "connected"


def by_x32_calls(aims: Aims) -> str:
    """Calls of the third convention of this processor, 64 bits wide with 32-bit pointers."""
    _needs_x86_64()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(_X32 | 41), 2, 1, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return "a socket was made"


def by_io_uring(aims: Aims) -> str:
    """The kernel is handed a list of what to do, and makes the socket itself: no call of that name is seen."""
    parameters = ctypes.create_string_buffer(120)
    ring = call("io_uring_setup", 4, parameters)
    entries, completions = struct.unpack_from("II", parameters, 0)
    submission = struct.unpack_from("8I", parameters, 40)
    completion = struct.unpack_from("8I", parameters, 80)
    shared = mmap.mmap(ring, max(submission[6] + 4 * entries, completion[5] + 16 * completions), offset=0)
    slots = mmap.mmap(ring, 64 * entries, offset=0x10000000)

    def do(operation: int, descriptor: int, offset: int, address: int = 0, length: int = 0) -> int:
        slots[:64] = struct.pack("<BBHiQQII", operation, 0, 0, descriptor, offset, address, length, 0) + bytes(32)
        (tail,) = struct.unpack_from("I", shared, submission[1])
        (mask,) = struct.unpack_from("I", shared, submission[2])
        struct.pack_into("I", shared, submission[6] + 4 * (tail & mask), 0)
        struct.pack_into("I", shared, submission[1], tail + 1)
        call("io_uring_enter", ring, 1, 1, 1, None, 0)
        (head,) = struct.unpack_from("I", shared, completion[0])
        (mask,) = struct.unpack_from("I", shared, completion[2])
        _, result, _ = struct.unpack_from("<QiI", shared, completion[5] + 16 * (head & mask))
        struct.pack_into("I", shared, completion[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    out = do(45, socket.AF_INET, socket.SOCK_STREAM)
    address = ctypes.create_string_buffer(ipv4_address(*aims.tcp), 16)
    do(16, out, 16, ctypes.addressof(address))
    os.write(out, f"{aims.nonce}\n".encode())
    return "connected"


def by_program_in_memory(aims: Aims) -> str:
    """A program without any library, as one compiled elsewhere, run without ever being a file."""
    _needs_x86_64()
    program = os.memfd_create("probe", 0)
    os.write(program, _static_program(ipv4_address(*aims.tcp), f"{aims.nonce}\n".encode()))
    return _run([f"/proc/self/fd/{program}"], keep=(program,), name="it")


def by_python(aims: Aims) -> str:
    """A child interpreter, which no guard of Python's own was told to watch."""
    script = (
        "import socket, sys\n"
        "try:\n"
        f"    out = socket.create_connection({aims.tcp!r}, {_SECONDS / 2})\n"
        f"    out.sendall(b'{aims.nonce}\\n')\n"
        "except OSError: sys.exit(1)\n"
    )
    return _run([sys.executable, "-I", "-S", "-c", script])


def by_shell(aims: Aims) -> str:
    if "bash" not in aims.programs:
        raise Skip("there is no bash")
    script = f"exec 3<>/dev/tcp/{aims.tcp[0]}/{aims.tcp[1]} && echo {aims.nonce} >&3"
    return _run([aims.programs["bash"], "--norc", "-c", script])


def by_curl(aims: Aims) -> str:
    if "curl" not in aims.programs:
        raise Skip("there is no curl")
    place = f"http://{aims.tcp[0]}:{aims.tcp[1]}/{aims.nonce}"
    # 52 is its number for an answer that was empty.
    return _run([aims.programs["curl"], "--silent", "--noproxy", "*", "--max-time", "6", place], reached=(0, 52))


def _needs_x86_64() -> None:
    if MACHINE != "x86_64":
        raise Skip(f"made for x86_64, and this is {MACHINE}")


_INT_80 = bytes.fromhex("cd80")
_SYSCALL = bytes.fromhex("0f05")
_IF_FAILED = bytes.fromhex("85c0 78")  # test eax, eax; js over the bytes whose number follows
_REGISTERS = {"eax": 0xB8, "ecx": 0xB9, "edx": 0xBA, "ebx": 0xBB, "esi": 0xBE, "edi": 0xBF}


def _load(**registers: int) -> bytes:
    """Five bytes for each register: mov register, value."""
    return b"".join(struct.pack("<BI", _REGISTERS[name], value) for name, value in registers.items())


def _static_program(address: bytes, said: bytes) -> bytes:
    """An ELF program: connect there, say that, end with the number of the error or 0."""
    base, headers = 0x400000, 64 + 56
    leave = bytes.fromhex("f7d8 89c7") + _load(eax=60) + _SYSCALL  # neg eax; mov edi, eax

    def code_for(address_at: int) -> bytes:
        say = _load(eax=1, esi=address_at + len(address), edx=len(said)) + _SYSCALL
        say += bytes.fromhex("31c0")  # xor eax, eax
        connect = bytes.fromhex("89c7") + _load(eax=42, esi=address_at, edx=16) + _SYSCALL  # mov edi, eax
        code = _load(eax=41, edi=socket.AF_INET, esi=socket.SOCK_STREAM, edx=0) + _SYSCALL
        code += _IF_FAILED + bytes([len(connect) + len(_IF_FAILED) + 1 + len(say)]) + connect
        return code + _IF_FAILED + bytes([len(say)]) + say + leave

    code = code_for(base + headers + len(code_for(0)))
    content = code + address + said
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    whole = headers + len(content)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, whole, whole, 4096) + content


def _run(command: list[str], *, keep: tuple[int, ...] = (), reached: tuple[int, ...] = (0,), name: str = "") -> str:
    """Run a program, whose status is one of `reached` where it got there."""
    name = name or Path(command[0]).name
    try:
        status = subprocess.run(
            command, check=False, pass_fds=keep, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        raise TimeoutError("no answer") from None
    if status in reached:
        return f"{name} connected"
    raise Refused(f"{name} ended with {status}")


PROBES = (
    ("socket() and connect() by ctypes", by_number),
    ("socket() with bits that the kernel drops", by_high_bits),
    ("sockets by the 32-bit calls (int 0x80)", by_32_bit_calls),
    ("sockets by the x32 calls", by_x32_calls),
    ("sockets by io_uring", by_io_uring),
    ("a program made in memory", by_program_in_memory),
    ("another Python", by_python),
    ("the shell's /dev/tcp", by_shell),
    ("curl", by_curl),
)
