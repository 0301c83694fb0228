"""Flashing: a bundle becomes the version that a board serves, in a transaction that can stop anywhere.

On the host: `host` (the verbs), `chunks`, `wire`, `keys`. On the board: `board` (its program), `transaction`,
`recovery`, `store`, `journal`, `lock`, `trust`, `check`, `facts`, `service`. docs/flash.md says what happens when.
"""
