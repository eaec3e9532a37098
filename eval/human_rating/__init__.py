"""Blind rating forms for people: handed out with the sessions in random order, brought back as one more judge.

:func:`cbtrain.eval.human_rating.export.write_forms` and :func:`cbtrain.eval.human_rating.import_forms.import_forms` are
the ways in.
"""
