"""Flashing: a bundle becomes the version that a board serves, in a transaction that can stop anywhere.

What users call is in `verbs`, `fleet` and `keys`. On the host: `host`, `rollout`, `fleet_file`, `bootstrap`, `wheels`,
`chunks`, `wire`. On the board: `board` (its program), `transaction`, `recovery`, `store`, `journal`, `lock`, `trust`,
`check`, `facts`; `install_there` runs on one that has no edgekd yet. docs/flash.md says what happens when.
"""
