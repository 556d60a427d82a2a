"""The Ray actors of a vector environment: started all at once, called once each, ended. What a lost one means is decided by the caller.

Ray neither restarts actors nor retries calls here (`max_restarts=0`, `max_task_retries=0`): a step taken twice corrupts its episode.
"""

import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from metaopt.cluster.env_host import EnvHost, MakeEnv, Opened
from metaopt.cluster.pool import check_same_versions, versions
from metaopt.cluster.ray_start import START_TIMEOUT_S, fit, start_ray
from metaopt.errors import MetaoptError, WorkerLostError

__all__ = ["Lost", "RayHosts"]

CLOSE_TIMEOUT_S = 5.0


class Lost(NamedTuple):
    """In place of an answer that is late or will never come: why, and what the host raised if that was it."""

    reason: str
    cause: BaseException | None = None


class _Actor(EnvHost):
    """A host in a process of its own."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; only the driver decides what it means


class RayHosts:
    """One actor a share of environments. An actor that is lost leaves its place empty until `open` fills it again.

    Args:
        make: recipe of an environment.
        counts: number of environments on each actor.
        threads: torch threads and CPUs of each actor.
        address: a running Ray cluster; None for the one that this process has joined, or else a private one, which `close` ends.
        deadline_s: seconds for the answer to any call.

    Raises:
        ConfigError: the cluster is unreachable or too small, or what an actor raises when it makes its environments.
        WorkerLostError: an actor did not come up.
    """

    def __init__(self, make: MakeEnv, counts: Sequence[int], threads: int, address: str | None, deadline_s: float) -> None:
        self._make, self._counts, self._threads, self._deadline_s = make, counts, threads, deadline_s
        self._actors: dict[int, Any] = {}
        self._owns_ray = start_ray(address, len(counts) * threads)
        try:
            fit(len(counts), threads, "cpu")
            answers = self.open()
            for index, answer in answers.items():
                if isinstance(answer, Lost):
                    if isinstance(answer.cause, MetaoptError):
                        raise answer.cause from None
                    raise WorkerLostError(
                        f"actor {index} did not come up: {answer.reason}; each needs {threads} CPUs that no other actor holds"
                    )
            self.opened: list[Opened] = list(answers.values())
        except BaseException:
            self.close()
            raise

    def open(self) -> dict[int, Any]:
        """Start an actor in each empty place; return by place its `Opened`, or `Lost`.

        Raises:
            ConfigError: an actor runs other versions.
        """
        import ray

        variables = {name: str(self._threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        calls = {}
        for index in range(len(self._counts)):
            if index not in self._actors:
                options = ray.remote(_Actor).options(
                    num_cpus=self._threads,
                    max_restarts=0,
                    max_task_retries=0,
                    runtime_env={"env_vars": variables},  # in the environment before torch is imported
                )
                self._actors[index] = options.remote()
                calls[index] = self.send(index, "open", self._make, self._counts[index], self._threads)
        answers = self.gather(calls, START_TIMEOUT_S + self._deadline_s)
        for index, answer in answers.items():
            if isinstance(answer, Opened):
                check_same_versions(versions(), answer.versions, f"actor {index}")
        return answers

    def present(self, index: int) -> bool:
        """Return whether there is an actor at this place, as far as is known."""
        return index in self._actors

    def send(self, index: int, method: str, *arguments: Any) -> Any:
        """Call `method` of the host at this place; return the reference to its answer."""
        if index not in self._actors:
            raise RuntimeError("the vector environment is closed, or was given up")
        return getattr(self._actors[index], method).remote(*arguments)

    def gather(self, calls: Mapping[int, Any], deadline_s: float | None = None) -> dict[int, Any]:
        """Wait for all `calls` together; return each place's answer, or `Lost`, in their order."""
        import ray

        if not calls:
            return {}
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=deadline_s)
        arrived, answers = set(ready), {}
        for index, reference in calls.items():
            if reference not in arrived:
                answers[index] = Lost(f"no answer in {deadline_s:g} s")
                continue
            try:
                answers[index] = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                answers[index] = Lost(f"{type(error.cause).__name__}: {error.cause}", error.cause)
            except ray.exceptions.RayError as error:
                answers[index] = Lost(type(error).__name__)
        return answers

    def ask(self, calls: Mapping[int, Any], what: str) -> dict[int, Any]:
        """Return the answers to `calls` that are no steps; what an environment raises is raised here.

        Raises:
            WorkerLostError: an actor is dead or late.
        """
        import ray

        try:
            return dict(zip(calls, ray.get(list(calls.values()), timeout=self._deadline_s), strict=True))
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            raise WorkerLostError(f"an actor did not answer {what}: {type(error).__name__}; the next step replaces it") from error

    def kill(self, indices: Iterable[int]) -> None:
        """End actors, dead or alive, and empty their places."""
        import ray

        for index in indices:
            actor = self._actors.pop(index, None)
            if actor is not None and ray.is_initialized():
                with suppress(RuntimeError, ValueError):  # dead already, or it lives on behind a broken connection
                    ray.kill(actor, no_restart=True)

    def close(self, orderly: bool = False) -> None:
        """End all actors, and Ray when it was started here; `orderly` lets the environments close before. May be called twice."""
        import ray

        if orderly and self._actors and ray.is_initialized():
            closing = [actor.close.remote() for actor in self._actors.values()]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        self.kill(list(self._actors))
        if self._owns_ray:
            self._owns_ray = False
            ray.shutdown()
