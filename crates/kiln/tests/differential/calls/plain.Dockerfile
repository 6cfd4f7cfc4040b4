FROM scratch
CMD ["a"]
