"""Network interfaces of this machine: gloo and NCCL are told names of these, not addresses."""

from __future__ import annotations

import psutil


def interface_of(address: str) -> str:
    """The interface that has an address; loopback's where none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return str(name)
    return "lo"


def variables_of(address: str) -> dict[str, str]:
    """What keeps gloo and NCCL on the interface with this address."""
    name = interface_of(address)
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
