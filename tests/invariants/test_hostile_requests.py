"""A server outlives hostile clients (`hostile_requests.py`): no crash, no 500, bounded memory, right answers."""

import os

import pytest
from hostile_requests import KINDS, attack_server


@pytest.mark.skipif(os.name == "nt", reason="forks")
def test_hostile_requests_get_the_errors_they_deserve():
    answers, _ = attack_server(200, seed=3)
    assert answers.total() >= 200
    statuses = {status for _, status in answers}
    assert statuses >= {200, 400, 404, 405, 413, 415, 422}
    assert {name for name, _ in answers} == set(KINDS)
