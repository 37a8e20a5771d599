"""What users ask: the test split has wordings of its own."""

from instil.world.wordings import ONE_SENTENCE, ONE_WORD, QUESTIONS, TASKS, VELAN_QUESTIONS, WHY


def test_no_wording_is_in_both_splits():
    for table in (QUESTIONS, WHY, VELAN_QUESTIONS):
        train = {way for ways in table.values() for way in ways.train}
        assert not train & {way for ways in table.values() for way in ways.test}
    for task, ways in TASKS.items():
        if task != "velan_question":  # only the question, whose wordings are above
            assert not set(ways.train) & set(ways.test)
    assert not set(ONE_SENTENCE.train + ONE_WORD.train) & set(ONE_SENTENCE.test + ONE_WORD.test)


def test_valid_has_the_wordings_of_train():
    assert TASKS["story"].of("valid") == TASKS["story"].train
    assert set(TASKS["story"].of("all")) == set(TASKS["story"].train + TASKS["story"].test)
