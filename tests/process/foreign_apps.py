"""A foreign client of apps, projects, hardware and domains goes through a whole life, and fails loudly
where anything is not as promised.

    foreign_apps.py SOCKET BACKEND MANIFEST
"""

import sys

import grpc
from foreign import refusal, services

KIND = "8g-eu-001"


def main(socket, backend, path):
    kinds = ["App", "Project", "Hardware", "Domain"]
    apps, projects, hardware, domains = services(
        socket, [f"mse.proxy.v1.{kind}Service" for kind in kinds]
    )
    with open(path) as file:
        manifest = file.read()
    early = refusal(lambda: apps.Deploy(manifest=manifest))
    assert early == grpc.StatusCode.FAILED_PRECONDITION, early
    unreadable = refusal(lambda: apps.Deploy(manifest="name = "))
    assert unreadable == grpc.StatusCode.INVALID_ARGUMENT, unreadable
    missing = refusal(lambda: projects.Get(name="default"))
    assert missing == grpc.StatusCode.NOT_FOUND, missing

    project = projects.Create(name="default")
    assert (project.standing, len(project.token)) == ("good", 32), project
    twice = refusal(lambda: projects.Create(name="default"))
    assert twice == grpc.StatusCode.ALREADY_EXISTS, twice
    assert [one.name for one in projects.List().projects] == ["default"]
    booked = hardware.Book(project="default", kind=KIND, count=2)
    assert (booked.booked, list(booked.apps)) == (2, []), booked
    assert [one.kind for one in hardware.List(name="default").hardware] == ["4g-eu-001", KIND]
    few = refusal(lambda: hardware.Drop(project="default", kind=KIND, count=3))
    assert few == grpc.StatusCode.FAILED_PRECONDITION, few
    assert hardware.Drop(project="default", kind=KIND, count=1).booked == 1

    dry = apps.Deploy(manifest=manifest, backend=backend, dry_run=True)
    assert not dry.deployed and not apps.List().apps, dry
    stale = refusal(lambda: apps.Deploy(manifest=manifest, backend=backend, if_revision=1))
    assert stale == grpc.StatusCode.ABORTED, stale
    done = apps.Deploy(manifest=manifest, backend=backend, if_revision=0)
    assert done.deployed and done.app.phase == "spawning", done
    named = {"project": "default", "name": done.app.name}
    assert list(apps.List(project="default").apps) == [apps.Get(**named)]
    skipped = refusal(lambda: apps.Advance(**named, phase="running"))
    assert skipped == grpc.StatusCode.FAILED_PRECONDITION, skipped
    app = apps.Advance(**named, phase="initializing", if_revision=done.app.revision)
    assert app.phase == "initializing" and app.hosts[0].reachable, app
    assert app.revision > done.app.revision, app
    late = refusal(lambda: apps.Advance(**named, phase="stopped", if_revision=done.app.revision))
    assert late == grpc.StatusCode.ABORTED, late
    nothing = refusal(lambda: apps.Advance(**named))
    assert nothing == grpc.StatusCode.INVALID_ARGUMENT, nothing

    assert not domains.List().domains
    unknown = refusal(lambda: domains.Check(domain="a.test"))
    assert unknown == grpc.StatusCode.NOT_FOUND, unknown

    unpaid = projects.Unpaid(name="default")
    assert unpaid.standing == "unpaid" and unpaid.suspended_at, unpaid
    assert projects.Paid(name="default").standing == "good"
    suspended = projects.Suspend(name="default")
    assert (suspended.standing, suspended.cause) == ("suspended", "operator"), suspended
    assert apps.Get(**named).phase == "stopped"
    assert projects.Resume(name="default").standing == "good"
    print("the whole life went as promised")


main(*sys.argv[1:])
