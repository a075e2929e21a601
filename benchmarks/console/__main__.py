"""The console's pages at real size: how long the server takes for each, and when a browser first shows it.

python -m benchmarks.console [--exams 200] [--readings 500] [--messages 50000] [--times 15]

Each page is asked for by somebody of the role that works with it: once to warm up, then as often as said, one at a time. The
server's part is the time from the request to the last byte of the answer, over loopback; the processor time is that of the
server's own process. First paint is the browser's own word (Paint Timing, first-contentful-paint, from the begin of the
navigation on), measured in Chromium where there is one.
"""

import argparse
import statistics
import time

import httpx
import uvloop

from benchmarks.console.pages import Page, pages
from benchmarks.console.real_size import STATIONS, Size, fill
from benchmarks.load import machine
from benchmarks.stand import Stand, cpu_seconds, standing
from demo.department import people, rooms
from demo.server import free_port

_LOGINS = [login for login in people.LOGINS if login.role != "referrer"]


async def measure(size: Size, times: int) -> None:
    """Fill, ask and print."""
    print(machine(), flush=True)
    async with standing() as stand:
        began = time.perf_counter()
        await rooms.furnish(stand.app, free_port(), free_port(), STATIONS)
        codes = await people.engage(stand.server, stand.app, _LOGINS)
        there = await fill(stand, size)
        held = f"{size.exams} bookings a day, {size.readings} readings, {size.messages:,} messages"
        print(f"{held}; made in {time.perf_counter() - began:.0f} s", flush=True)
        cookies = {login.name: await _logged_in(stand.server.base_url, login.name, codes) for login in _LOGINS}
        asked = pages(there, f"{there.tomorrow:%Y-%m-%d}")
        painted = await _painted(stand.server.base_url, asked, cookies)
        for page in asked:
            print(
                f"{page.name:<34} {await _asked(stand, page, cookies[page.who], times)}{painted.get(page.name, '')}", flush=True
            )


async def _logged_in(base_url: str, name: str, codes: dict[str, list[str]]) -> str:
    """The cookie of a session."""
    async with httpx.AsyncClient(base_url=base_url, follow_redirects=True, timeout=60) as http:
        await people.log_in(http, name, codes[name].pop() if name in codes else "")
        cookie = http.cookies.get("ris")
        assert cookie
        return cookie


async def _asked(stand: Stand, page: Page, cookie: str, times: int) -> str:
    assert stand.server.process is not None
    found = []
    async with httpx.AsyncClient(base_url=stand.server.base_url, cookies={"ris": cookie}, timeout=60) as http:
        for n in range(times + 1):
            used, began = cpu_seconds(stand.server.process.pid), time.perf_counter()
            answer = await http.get(page.path)
            took = time.perf_counter() - began
            assert answer.status_code == 200, f"{page.path}: {answer.status_code} {answer.text[:500]}"
            if n == 0:
                first = took
            else:
                found.append((took, cpu_seconds(stand.server.process.pid) - used))
    median, slowest = statistics.median(t for t, _ in found), max(t for t, _ in found)
    cpu = statistics.mean(c for _, c in found)
    told = f"median {1000 * median:4.0f} ms, slowest {1000 * slowest:4.0f}, first {1000 * first:4.0f}"
    return f"{told}, processor {1000 * cpu:4.0f} ms, {len(answer.content) / 1000:5.0f} kB"


async def _painted(base_url: str, asked: list[Page], cookies: dict[str, str]) -> dict[str, str]:
    """First paint of each page, as a text; nothing where there is no Chromium."""
    try:
        from benchmarks.console.paint import first_paints
    except ImportError:
        return {}
    return {name: f", first paint {ms:4.0f} ms" for name, ms in (await first_paints(base_url, asked, cookies)).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=200, help="bookings of today, and as many of tomorrow")
    parser.add_argument("--readings", type=int, default=500)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=15, help="how often each page is asked for")
    given = parser.parse_args()
    uvloop.run(measure(Size(given.exams, given.readings, given.messages), given.times))


main()
