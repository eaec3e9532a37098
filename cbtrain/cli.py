def entry() -> None:
    raise SystemExit("not yet")
