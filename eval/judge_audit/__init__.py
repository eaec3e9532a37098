"""Test a rater: does it notice changes in a session?"""
