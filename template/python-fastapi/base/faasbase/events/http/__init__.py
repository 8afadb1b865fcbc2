"""Events pushed over HTTP, and sent over it: to functions by the gateway, or to anyone who takes CloudEvents."""
