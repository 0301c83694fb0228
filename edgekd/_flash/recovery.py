"""Back to a sound state: what every transaction does first, and what the guard does when a service starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError
from .lock import locked

if TYPE_CHECKING:
    from pathlib import Path

    from .store import Store

TRIAL, BACK, STARTS = "trial.json", ".back", "starts"
GUARD_WAIT_S = 1.0  # longer than anybody holds the lock but a flash
STARTS_ALLOWED = 1  # during a trial: the one that the flash itself asked for


def arm(store: Store, release: str, previous: str | None) -> None:
    """Prepare the way back, before the switch: from here on whoever finds the trial unfinished goes back.

    The link back is made now: at the time it is needed the disk may be full, and a rename needs no room.
    """
    disk, folder = store.disk, store.folder
    if previous is not None:
        disk.link(folder / BACK, f"releases/{previous}")
    disk.write(folder / STARTS, [])
    disk.write(folder / TRIAL, [json.dumps({"release": release, "previous": previous}).encode()])


def commit(store: Store) -> None:
    """Keep the release for good: with the trial's file gone, nobody goes back any more."""
    store.disk.remove(store.folder / TRIAL)
    store.disk.remove(store.folder / BACK)
    store.disk.remove(store.folder / STARTS)


def trial(store: Store) -> dict[str, Any] | None:
    """Return the trial that has not ended, or None."""
    try:
        found = json.loads((store.folder / TRIAL).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def roll_back(store: Store) -> str | None:
    """End the trial by going back; may be killed and called again. Returns what is then in service."""
    found = trial(store)
    if found is not None:
        previous = found.get("previous")
        if previous is None:
            store.disk.remove(store.current)
        elif (store.folder / BACK).is_symlink():
            store.disk.rename(store.folder / BACK, store.current)
        elif store.in_service() != previous:
            store.disk.link(store.current, f"releases/{previous}")
    commit(store)
    return store.in_service()


def drop_refused(store: Store, release: str) -> None:
    """Remove a release whose trial has failed, unless it was in service before: nobody may come back to it."""
    if release in store.releases() and release not in (store.in_service(), *store.journal.committed()):
        store.disk.remove(store.release(release))


def recover(store: Store, flash: str, who: str) -> list[str]:
    """Undo what an interrupted flash left; call it with the lock held. Returns what was done, one line each."""
    done = []
    found = trial(store)
    if found is not None:
        now = roll_back(store)
        drop_refused(store, str(found.get("release")))
        done.append(f"an interrupted trial of {found.get('release')} ended: back to {now or 'nothing in service'}")
    else:
        commit(store)  # a trial that was never armed, or a commit that was cut short, leaves its helpers behind
    store.disk.remove(store.staging)
    for folder in (store.folder, store.folder / "releases"):
        for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
            store.disk.remove(path)
    now = store.in_service()
    if now is not None and not store.whole(now):
        done.append(_replace_damaged(store, now))
    now = store.in_service()
    for line in done:
        store.journal.add("recover", "ok", line, flash=flash, who=who)
    if now is not None and store.journal.committed()[-1:] != [now]:  # killed between a commit and its line
        store.journal.add("recover", "ok", f"in service: {now}", flash=flash, who=who, release=now)
    return done


def _replace_damaged(store: Store, damaged: str) -> str:
    """Put the latest whole release in place of one whose bytes have changed on the disk.

    Of those that were in service for good: another may have failed its tests. Without a journal nobody can tell.
    """
    here = set(store.releases()) - {damaged}
    for name in [*reversed(store.journal.committed())] or sorted(here):
        if name in here and store.whole(name):
            store.disk.link(store.current, f"releases/{name}")
            return f"release {damaged} is damaged: back to {name}"
    store.disk.remove(store.current)
    return f"release {damaged} is damaged, and there is no other: nothing is in service"


def guard(store: Store) -> tuple[Path, list[str]]:
    """Make sure, before a service starts, that what it loads is whole and no trial that failed.

    While a flash is in progress the start is counted instead: a service that starts again and again ends the trial.

    Returns:
        The bundle to load, and what had to be done.

    Raises:
        DeviceError: nothing is in service under this name.
    """
    try:
        with locked(store.folder / "lock", "guard", wait_s=GUARD_WAIT_S):
            done = recover(store, "guard", "guard")
    except FileNotFoundError:
        done = []
    except DeviceError:  # a flash holds the lock, and watches this count
        store.disk.append(store.folder / STARTS, b".")
        done = ["a flash is in progress: this start was counted"]
    if store.in_service() is None:
        raise DeviceError(
            f"nothing is in service as {store.name} below {store.root}: "
            f"edgekd flash model.bin DEVICE --name {store.name}"
        )
    return store.current / "model.bin", done


def starts(store: Store) -> int:
    """Return how often the service started during the trial."""
    try:
        return (store.folder / STARTS).stat().st_size
    except FileNotFoundError:
        return 0
