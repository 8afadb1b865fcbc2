"""
``python -m faasbase.deadletters``: list, show, redrive and purge the dead letters of the function in this container.

    kubectl exec deploy/order-worker -- python -m faasbase.deadletters list --since 2h

It finds them by the function's own settings.  Exit status: 0 all is done, 1 something has failed, 2 arguments or
settings are wrong, 130 it was interrupted.
"""
