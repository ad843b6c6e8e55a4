// Command go-peer drives an NRI plugin with the runtimes' own code, the Go package adaptation.
//
// It prints one line for each check, `ok NAME` or `FAIL NAME: why`, and `measure` lines with latencies; its exit code is 1
// if any check failed. The plugin is any program that connects by itself to the socket it is told:
//
//	go-peer --socket /tmp/x/nri.sock --containers 1000 --creates 5000 -- logger --socket /tmp/x/nri.sock
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// How long a plugin may take to connect: it may be waiting between two attempts.
const patience = 30 * time.Second

type options struct {
	nri         string
	socket      string
	containers  int
	creates     int
	runtime     string
	version     string
	timeout     time.Duration
	annotation  string
	slow        bool
	prelaunched string
	command     []string
}

func main() {
	var o options
	flag.StringVar(&o.nri, "nri", "0.8.0", "the version of NRI that this was built with")
	flag.StringVar(&o.socket, "socket", "", "where to listen")
	flag.IntVar(&o.containers, "containers", 1000, "how many containers exist when the plugin connects")
	flag.IntVar(&o.creates, "creates", 5000, "how many containers are created in a row")
	flag.StringVar(&o.runtime, "runtime", "containerd", "the runtime's name")
	flag.StringVar(&o.version, "runtime-version", "", "the runtime's version; by default one that has this NRI")
	flag.DurationVar(&o.timeout, "timeout", 2*time.Second, "the time for one request")
	flag.StringVar(&o.annotation, "annotation", "", "an annotation that the plugin sets on each new container")
	flag.BoolVar(&o.slow, "slow", false, "check a plugin whose creation of containers is slower than the time-out")
	flag.StringVar(&o.prelaunched, "prelaunched", "", "a plugin for the runtime to start; the rest is then not checked")
	flag.Parse()
	o.command = flag.Args()
	if o.version == "" {
		o.version = map[string]string{"0.6.1": "1.7.24~ds1", "0.8.0": "2.1.9+unknown"}[o.nri]
	}
	if o.socket == "" || (len(o.command) == 0) == (o.prelaunched == "") {
		fmt.Fprintln(os.Stderr, "go-peer: needs --socket, and either a plugin's command or --prelaunched")
		os.Exit(2)
	}
	if err := os.MkdirAll(filepath.Dir(o.socket), 0o700); err != nil {
		fmt.Fprintln(os.Stderr, "go-peer:", err)
		os.Exit(2)
	}

	c := &checks{}
	switch {
	case o.prelaunched != "":
		checkPrelaunched(c, o)
	case o.slow:
		checkSlow(c, o)
	default:
		checkAll(c, o)
	}
	if c.failed > 0 {
		fmt.Printf("%d of %d checks failed\n", c.failed, c.count)
		os.Exit(1)
	}
	fmt.Printf("all %d checks passed\n", c.count)
}

// checks counts and prints results.
type checks struct {
	count, failed int
}

func (c *checks) check(name string, err error) bool {
	c.count++
	if err != nil {
		c.failed++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return false
	}
	fmt.Printf("ok %s\n", name)
	return true
}
