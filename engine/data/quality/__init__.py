"""What a person should know of their data before a run learns from it, in numbers and with places.

words -> similar (near duplicates), leaks (benchmark rows); languages; examine (what one chunk of rows says) ->
gather (all chunks together) -> report. findings and options are what the app holds; client runs the report in a
child process. The personal data that is counted here is found by engine.data.personal.
"""
