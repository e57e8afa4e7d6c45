"""What a request is noted to have been at."""

import threading

from cni_netkit import phases
from cni_netkit.phases import Course


def test_phases_follow_without_a_gap() -> None:
    """Together they are the request: from when it came to its end."""
    course = Course({"CNI_COMMAND": "ADD"})
    with course.noted("turn"):
        phases.begin("read")
        phases.begin("device")
    names = [each.name for each in course.phases]
    assert names == ["turn", "read", "device"]
    assert course.phases[0].began == course.began
    assert course.phases[-1].ended == course.ended
    for one, other in zip(course.phases, course.phases[1:], strict=False):
        assert one.ended == other.began
        assert one.began <= one.ended


def test_each_request_has_its_own() -> None:
    """At the same time, in two threads; and nothing is noted outside of one."""
    both = threading.Barrier(2)
    courses = {name: Course({}) for name in ("one", "other")}

    def work(name: str) -> None:
        with courses[name].noted("turn"):
            both.wait(10)
            phases.begin(name)
            phases.concerns(name)
            both.wait(10)
            if name == "one":
                phases.released()

    threads = [threading.Thread(target=work, args=(name,)) for name in courses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phases.begin("outside")
    phases.concerns("outside")
    phases.released()
    found = {name: ([p.name for p in c.phases], c.network) for name, c in courses.items()}
    assert found == {name: (["turn", name], name) for name in courses}
    assert (courses["one"].released, courses["other"].released) == (1, 0)
