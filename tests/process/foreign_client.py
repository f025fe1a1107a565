"""A foreign client of routes goes through the whole life of one, and fails loudly where anything is not
as promised.

    foreign_client.py SOCKET BACKEND
"""

import sys
import threading

import grpc
from foreign import PATIENCE, refusal, services


def main(socket, backend):
    wanted = ["mse.proxy.v1.RouteService", "grpc.health.v1.Health"]
    routes, health = services(socket, wanted)
    assert health.Check().status == 1, "it serves"

    listed = routes.List()
    assert not listed.routes, listed
    events = []
    watch = routes.Watch(after=listed.revision)
    seen_all = threading.Event()

    def follow():
        try:
            for answer in watch:
                events.extend((answer.revision, event) for event in answer.events)
                if len(events) == 3:
                    seen_all.set()
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED, error

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()

    route = {"id": "shop", "hosts": ["shop.test"], "backends": [backend]}
    first = routes.Set(route=route, if_revision=0, request_id="foreign-1")
    assert first.changed and first.revision > listed.revision
    again = routes.Set(route=route, if_revision=0, request_id="foreign-1")
    assert again.revision == first.revision, "a repetition gets the first one's answer"
    stale = refusal(lambda: routes.Set(route=route, if_revision=0, request_id="foreign-2"))
    assert stale == grpc.StatusCode.ABORTED, stale
    faulty = {"id": "bad", "hosts": ["a..b"], "backends": ["nowhere"]}
    bad = refusal(lambda: routes.Set(route=faulty))
    assert bad == grpc.StatusCode.INVALID_ARGUMENT, bad
    taken = refusal(lambda: routes.Set(route={**route, "id": "thief"}))
    assert taken == grpc.StatusCode.ALREADY_EXISTS, taken

    kept = routes.Get(id="shop")
    assert list(kept.route.hosts) == ["shop.test"] and kept.revision == first.revision, kept
    route["expires_at"] = "2099-01-01T00:00:00Z"
    second = routes.Set(route=route, if_revision=first.revision)
    assert second.revision > first.revision

    allowed = routes.Explain(host="SHOP.test")
    assert allowed.allowed and allowed.route.route.id == "shop", allowed
    ended = routes.Explain(host="shop.test", at="2099-01-01T00:00:00Z")
    assert (ended.allowed, ended.outcome) == (False, "expired_name"), ended
    unknown = routes.Explain(host="other.test")
    assert unknown.outcome == "unknown_name", unknown

    gone = routes.Remove(id="shop", if_revision=second.revision)
    assert gone.changed
    missing = refusal(lambda: routes.Get(id="shop"))
    assert missing == grpc.StatusCode.NOT_FOUND, missing

    assert seen_all.wait(PATIENCE), events
    assert [revision for revision, _ in events] == [first.revision, second.revision, gone.revision]
    assert [event.HasField("route") for _, event in events] == [True, True, False]
    watch.cancel()
    follower.join(PATIENCE)

    history = routes.History(id="shop")
    changes = [change for record in history.records for change in record.changes]
    assert [(bool(c.before), bool(c.after)) for c in changes] == [
        (False, True),
        (True, True),
        (True, False),
    ], history
    assert all(record.by.startswith("unix:uid=") for record in history.records), history
    assert history.head_number == history.records[-1].number
    print("the whole cycle went as promised")


main(*sys.argv[1:])
