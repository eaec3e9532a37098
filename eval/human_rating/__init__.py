"""Blind rating forms for people: exported with the sessions in random order, imported as one more judge.

:func:`cbtrain.eval.human_rating.export.write_forms` and :func:`cbtrain.eval.human_rating.import_forms.import_forms` are
the entry points.
"""
