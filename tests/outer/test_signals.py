"""The first signal is a request, the second is obeyed at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from metaopt.outer.signals import EXIT_STOPPED, StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_sets_the_flag_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.signal_name == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_second_signal_exits_at_once():
    script = """
import os, signal, time
from metaopt.outer.signals import StopRequest
try:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        print(stop.signal_name, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
finally:
    print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (EXIT_STOPPED, "SIGINT\n")


def test_other_threads_may_use_it_without_signals():
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
