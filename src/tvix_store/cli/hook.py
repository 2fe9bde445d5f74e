"""`tvix-store hook`. Nix waits for it after each build, so this imports little."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tvix_store.cli.built_paths import built_paths, is_called_by_nix
from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import Invocation, json_option, shared_options
from tvix_store.cli.push_queue import chosen_queue, chosen_targets, queue_options, start_in_background
from tvix_store.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from tvix_store.operations.paths.push_queue import PushQueue

T = TypeVar("T")


class _Hook(SectionedCommand):
    """A command that does not fail when Nix calls it: Nix would end the build, and all others. An error is a line on stderr."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        return _without_failure(lambda: super(_Hook, self).make_context(*args, **kwargs))

    def invoke(self, ctx: click.Context) -> Any:
        return _without_failure(lambda: super(_Hook, self).invoke(ctx))


def _without_failure(step: Callable[[], T]) -> T:
    if not is_called_by_nix():
        return step()
    try:
        return step()
    except click.exceptions.Exit:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the build goes on
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"tvix-store: not queued for the cache: {' '.join(text.split()) or type(error).__name__}", file=sys.stderr)
        raise click.exceptions.Exit(0) from None


@click.command(cls=_Hook)
@queue_options
@click.option(
    "--install", metavar="FILE", type=FilePath(), help="Write a script for Nix's post-build-hook, with the other options in it."
)
@click.option("--serve", is_flag=True, help="Push what waits and what comes, until a signal ends it.")
@click.option("--drain", is_flag=True, help="Push until nothing waits any more.")
@click.option("--lock", type=int, hidden=True, is_eager=True)  # eager, so no setting: see start_in_background
@click.option("--status", is_flag=True, help="Show what waits, and what has failed.")
@click.option("--retry", is_flag=True, help="Let what was set aside wait again.")
@json_option
def hook(
    to: tuple[str, ...],
    queue: Path | None,
    nix_store: str | None,
    skip_upstream: bool,
    give_up_after: str | None,
    install: Path | None,
    serve: bool,
    drain: bool,
    lock: int | None,
    status: bool,
    retry: bool,
    as_json: bool,
) -> None:
    """Push what Nix builds, as Nix's post-build-hook: queue the paths in $OUT_PATHS, and push them in the background.

    The queue is on the disk. A cache that does not answer is tried again for as long as it takes. The hook never fails, since Nix
    would end the build.

    \b
        tvix-store hook --to https://cache.example.org --install /etc/nix/post-build-hook
        echo "post-build-hook = /etc/nix/post-build-hook" >> /etc/nix/nix.conf
        tvix-store hook --status
        tvix-store hook --drain                       # in CI, before the machine goes away
    """
    if sum((install is not None, serve, drain, status, retry)) > 1:
        raise click.UsageError("say one of --install, --serve, --drain, --status and --retry")
    if as_json and not status:
        raise click.UsageError("--json goes with --status")
    chosen = chosen_queue(queue)
    options = ["--give-up-after", give_up_after] if give_up_after else []
    if config := click.get_current_context().ensure_object(Invocation).value("config"):
        options += ["--config", os.path.abspath(config)]
    if install is not None:
        from tvix_store.cli.hook_script import install_script

        options += [word for target in chosen_targets(to, nix_store, "", skip_upstream=False) for word in ("--to", target.address)]
        options += ["--queue", str(chosen.directory)] if queue else []
        options += ["--nix-store", nix_store] if nix_store else []
        install_script(install, [*options, *(["--skip-upstream"] if skip_upstream else [])])
    elif lock is not None:
        from tvix_store.cli.push_queued import push_in_background

        push_in_background(chosen, lock, give_up_after)
    elif serve or drain:
        from tvix_store.cli.push_queued import push_queued

        push_queued(chosen, give_up_after, for_ever=serve)
    elif status:
        from tvix_store.cli.hook_status import show_status

        show_status(chosen, as_json=as_json)
    elif retry:
        from tvix_store.operations.paths.push_queue import number_of_paths

        count = chosen.retry()
        print(f"to be tried again: {number_of_paths(count)}", file=sys.stderr)
        if count:
            start_in_background(chosen, *options)
    else:
        _put(chosen, to, nix_store, skip_upstream)
        try:
            start_in_background(chosen, *options)
        except OSError as error:
            print(f"tvix-store: queued, but no process pushes it yet: {error}", file=sys.stderr)


def _put(queue: PushQueue, to: tuple[str, ...], nix_store: str | None, skip_upstream: bool) -> None:
    """Queue what was built."""
    from tvix_store.operations.paths.push_queue import Entry

    if not is_called_by_nix():
        raise click.UsageError("Nix calls this, with $OUT_PATHS; --install writes the script for nix.conf")
    paths = built_paths(nix_store)
    for target in chosen_targets(to, nix_store, os.path.dirname(paths[0]), skip_upstream=skip_upstream):
        queue.put(Entry(target, paths, time.time()))


hook.params += shared_options(opens_store=False)
