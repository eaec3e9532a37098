"""Blind rating forms for people: handed out with the sessions in random order, brought back as one more judge.

:func:`cbtrain.eval.forms.export.write_forms` and :func:`cbtrain.eval.forms.bring_back.bring_back` are the ways in.
"""
