"""The runbooks, carried by Celery (``celery -A tasks``). Start reading at ``tasks/runbooks/``.

Never run a file of this folder as a script: ``tasks/`` on the path would hide Celery itself.
"""
