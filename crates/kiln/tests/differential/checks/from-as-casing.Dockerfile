FROM scratch as build
from scratch AS two
