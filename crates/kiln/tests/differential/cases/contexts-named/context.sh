mkdir -p other/sub; echo extra >other/f; echo g >other/sub/g; echo own >f; printf 'ignored\n' >other/.dockerignore; echo i >other/ignored
