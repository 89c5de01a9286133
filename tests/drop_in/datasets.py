"""A dataset of fastload's for the tests of its DataLoader."""

import fastload as fl

N = 23
FIELDS = {"image": fl.Image(size=8), "label": fl.Int("cls")}
