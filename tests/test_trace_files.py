"""The script that counts the files between corpus and first gradient counts those, and nothing before or after."""

import importlib.util
import threading

import torch
from places import ROOT

from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy, SplitConfig
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import split
from cbtrain.transcripts.stats import stats


def trace_files():
    spec = importlib.util.spec_from_file_location("trace_files", ROOT / "launch/trace_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_between_corpus_and_first_gradient_are_counted():
    ended = []

    def program():
        corpus = read("sample")  # before the start
        corpus, _ = clean(corpus, CleaningPolicy())
        thread = threading.Thread(target=split, args=(corpus, SplitConfig()))
        thread.start()
        thread.join()
        torch.ones(1, requires_grad=True).backward()
        ended.append(stats(corpus))

    module = trace_files()
    trace = module.Trace(ROOT, "cbtrain/transcripts/cleaning.py:clean")
    trace.run(program)
    files = module.files_of(trace.functions)
    folder = "cbtrain/transcripts"
    assert trace.functions[0] == (f"{folder}/cleaning.py", "clean")
    assert "split" in files[f"{folder}/split.py"]  # on another thread
    assert not files.keys() & {f"{folder}/reading.py", f"{folder}/stats.py"}
    assert not ended
    functions = sum(map(len, files.values()))
    last = module.summary([*trace.functions, ("cbtrain/files.py", "hold")]).splitlines()[-1]
    assert last.startswith(f"{functions + 1} functions in {len(files) + 1} files, ")
    assert last.endswith("changes of file, 3 folders")
    assert module.summary([("a/b/c.py", "f"), ("a/b/d.py", "g"), ("a/b/d.py", "h"), ("a/b/c.py", "i")]).endswith(
        "4 functions in 2 files, 2 changes of file, 1 folders"
    )
