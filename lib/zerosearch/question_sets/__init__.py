"""Questions from outside: a folder of files in any published format, or a collection of the hub.

    own.py        the front door: load and check a reader's questions and passages together
    folder.py     which files of a folder are which set and split
    hub.py        the named collections, pinned revisions, loading through ``datasets``
    formats.py    the formats and how one is told from its keys
    plain.py      id, question, golden_answers (FlashRAG and this workbook's own)
    answers.py    question and answer in a few keys: NQ-open, EfficientQA, DPR, ReAct, SimpleDeepSearcher, Bamboogle
    hotpotqa.py   HotpotQA and 2WikiMultiHopQA with their contexts, native and as the hub has them
    musique.py    MuSiQue with decomposition and aliases
    popqa.py      PopQA: JSON inside the cells of a table
    triviaqa.py   TriviaQA, native and as the hub has it
    verl.py       rows for RL trainers: Search-R1, ZeroSearch, verl
    names.py      names of sets and splits, as files and rows spell them
    drafts.py     what a format reads from one row
    reading.py    one file -> questions: ids, limits, notes
    splits.py     which questions train and which are evaluated: never both
    sampling.py   seeded sub-samples and the training mix
"""
