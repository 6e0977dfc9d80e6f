"""Refused rows that keep their numbers count as no answer."""

from dataclasses import replace

import comparing

import lfiw_ope as ope


def test_metrics_of_kept_refusals_are_those_of_rows_without_numbers():
    data, policies, truth = comparing.inputs(100)
    found = ope.compare({"PDIS": ope.PDIS(comparing.ESTIMAND)}, data, policies, truth)
    first, *others = found.rows
    kept = replace(first, status="refused", reason="The data cannot tell it.")
    assert kept.value == first.value
    assert kept.answer is None
    with_numbers = replace(found, rows=(kept, *others))
    without = replace(found, rows=(kept.without_numbers(), *others))
    assert with_numbers.summary(resamples=20) == without.summary(resamples=20)
    assert with_numbers.summary(resamples=0) != found.summary(resamples=0)
    assert with_numbers.text() == without.text()
