FROM --platform=linux/amd64 scratch AS a
FROM --platform=linux/amd64 scratch AS b-amd64
FROM --platform=linux/arm64 scratch
FROM a
