// A program without dependencies, so that it builds where no Go module proxy can be reached.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Printf("built by %s for %s, running as uid %d\n", runtime.Version(), runtime.GOARCH, os.Getuid())
}
