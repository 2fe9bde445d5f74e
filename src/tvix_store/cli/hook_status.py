"""`tvix-store hook --status`."""

from __future__ import annotations

import time
from typing import Any

from tvix_store.access.tokens import shown_time
from tvix_store.cli.masking import masked
from tvix_store.cli.output import print_json
from tvix_store.operations.paths.push_queue import Entry, PushQueue, Target, number_of_paths


def show_status(queue: PushQueue, *, as_json: bool) -> None:
    """Print what waits in a queue, and what was set aside."""
    status = _status(queue)
    if as_json:
        print_json(status)
        return
    for each in status["waiting"]:
        print(f"for {each['to']}, {number_of_paths(len(each['paths']))}, the oldest since {each['since']}")
        if each["error"]:
            print(f"\tlast error: {each['error']} (tried {each['tries']} times, next at {each['nextTry']})")
    for each in status["errors"]:
        print(f"\t{each['path']}: {each['error']}")
    for each in status["failed"]:
        print(f"set aside for {each['to']}, {number_of_paths(len(each['paths']))}, since {each['since']}: {each['error']}")
        for path in each["paths"]:
            print(f"\t{path}")
    for each in status["damaged"]:
        print(f"damaged, and left alone: {each}")
    if not status["waiting"]:
        print(f"nothing waits in {queue.directory}")
    elif not status["running"]:
        print("no process pushes: the next build starts one, and so does tvix-store hook --drain")


def _status(queue: PushQueue) -> dict[str, Any]:
    if not queue.directory.exists():
        return {"queue": str(queue.directory), "running": False, "waiting": [], "errors": [], "failed": [], "damaged": []}
    waiting: dict[Target, dict[str, None]] = {}
    since: dict[Target, float] = {}
    for entry in filter(None, map(queue.get, queue.names())):
        waiting.setdefault(entry.target, {}).update(dict.fromkeys(entry.paths))
        since.setdefault(entry.target, entry.since)
    with queue.alone() as lock:
        running = lock is None
    state = queue.read_state()
    troubles = {(each["to"], each["nixStore"]): each for each in state.get("caches", ())}
    all_paths = {path for paths in waiting.values() for path in paths}
    return {
        "queue": str(queue.directory),
        "running": running,
        "waiting": [_waiting(target, list(waiting[target]), since[target], troubles) for target in waiting],
        "errors": [each for each in state.get("paths", ()) if each["path"] in all_paths],
        "failed": [_failed(each) for each in queue.failed()],
        "damaged": [str(each) for each in queue.damaged()],
    }


def _waiting(target: Target, paths: list[str], since: float, troubles: dict[Any, Any]) -> dict[str, Any]:
    trouble = troubles.get((target.address, target.nix_store))
    return {
        "to": masked(target.address),
        "nixStore": target.nix_store,
        "since": shown_time(since),
        "error": trouble["error"] if trouble else None,
        "tries": trouble["tries"] if trouble else 0,
        "nextTry": shown_time(max(trouble["nextTry"], time.time())) if trouble else None,
        "paths": paths,
    }


def _failed(entry: Entry) -> dict[str, Any]:
    return {"to": masked(entry.target.address), "since": shown_time(entry.since), "error": entry.error, "paths": list(entry.paths)}
