#!/usr/bin/env python3
"""A link between two network namespaces with a rate and a delay, for kernels without netem: two TUN devices, and this process between
them.

    slow-link.py HOST_A HOST_B BITS_PER_S DELAY_S

Each namespace gets a device `wire`. A packet is sent on at the rate, and arrives after the delay; what has waited for longer than
100 ms is dropped. Packets are of up to 64 kB, so that this process keeps up with 1 Gbit/s. Runs until it is killed.
"""

import collections
import fcntl
import os
import struct
import subprocess
import sys
import threading
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
LONGEST_WAIT = 0.1
MTU = 65_000


def device(number, host):
    """A TUN device that is `wire` in the namespace."""
    name = f"wire{number}"
    file = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "netns", host, "name", "wire", "mtu", str(MTU), "txqueuelen", "100"], check=True)
    return file


def carry(source, target, rate, delay):
    """Carries packets one way."""
    waiting, more = collections.deque(), threading.Semaphore(0)

    def send():
        while True:
            more.acquire()
            due, packet = waiting.popleft()
            left = due - time.monotonic()
            if left > 0:
                time.sleep(left)
            try:
                os.write(target, packet)
            except OSError:
                pass  # The other end is not up yet, or no more.

    threading.Thread(target=send, daemon=True).start()
    free = 0.0
    while True:
        packet = os.read(source, MTU + 100)
        now = time.monotonic()
        if free - now > LONGEST_WAIT:
            continue
        free = max(free, now) + 8 * len(packet) / rate
        waiting.append((free + delay, packet))
        more.release()


def main():
    host_a, host_b, rate, delay = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    a, b = device(0, host_a), device(1, host_b)
    print("ready", flush=True)
    threading.Thread(target=carry, args=(a, b, rate, delay), daemon=True).start()
    carry(b, a, rate, delay)


main()
