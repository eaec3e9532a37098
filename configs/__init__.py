"""Package data: rubrics, recipes, evaluations. Addressed by name, e.g. `quick`."""
