"""Small whole programs: copy one, and change it. The library's own tests run each as its users would.

- `move_account`: a script that copies every memory of one account into another.
"""
