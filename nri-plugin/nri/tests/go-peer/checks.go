package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/nri/pkg/api"
)

// How often the runtime is stopped and started again.
const restarts = 5

// What is in an annotation of each container when Synchronize is to be longer than one message may be.
const longBytes = 10_000

// checkAll runs everything that works with any plugin.
func checkAll(c *checks, o options) {
	r, err := newRuntime(o)
	if !c.check("the runtime starts", err) {
		return
	}
	defer func() { r.stop() }()
	r.fill(o.containers, 0)
	p, err := startPlugin(o)
	if !c.check("the plugin starts", err) {
		return
	}
	defer func() { p.kill() }()

	started := time.Now()
	if !c.check("registers and synchronizes", r.waitSync(1)) {
		return
	}
	fmt.Printf("measure synchronize containers=%d ms=%.1f connect_ms=%.1f\n",
		o.containers, ms(r.lastSync()), ms(time.Since(started)))

	c.check("a container's life", r.life("first", o.annotation))
	c.check("20 kB in an annotation", r.lifeWith("long", o.annotation, strings.Repeat("y", 20_000)))
	c.check("1 MB in an annotation", r.lifeWith("longer", o.annotation, strings.Repeat("z", 1_000_000)))
	c.check(fmt.Sprintf("%d containers created", o.creates), storm(r, o))
	c.check("no new connection during all this", r.expectSyncs(1))
	syncs := 1

	if o.nri != "0.6.1" {
		r.fill(o.containers, longBytes)
		r.restart()
		syncs++
		c.check("comes back, and Synchronize in parts", r.waitSync(syncs))
		c.check("a container's life after it", r.life("parts", o.annotation))
	}
	r.fill(o.containers, 0)

	for round := 0; round < restarts; round++ {
		r.restart()
		syncs++
		if !c.check(fmt.Sprintf("comes back after restart %d of the runtime", round+1), r.waitSync(syncs)) {
			return
		}
		c.check("a container's life after it", r.life(fmt.Sprint("restart", round), o.annotation))
	}

	// A plugin that hangs: every version of NRI creates the container and drops the plugin.
	c.check("stop the plugin's process", p.freeze())
	started = time.Now()
	_, err = r.create("hanging", "")
	c.check("the runtime gives up a hanging plugin", gaveUp(err, time.Since(started), o.timeout))
	c.check("let it run again", p.signal(syscall.SIGCONT))
	syncs++
	c.check("comes back after it was dropped", r.waitSync(syncs))
	c.check("a container's life after it", r.life("back", o.annotation))

	p.kill()
	_, err = r.create("alone", "")
	c.check("the runtime goes on without a dead plugin", deadIsClosed(err))
	p, err = startPlugin(o)
	c.check("a new process", err)
	syncs++
	c.check("synchronizes too", r.waitSync(syncs))
	c.check("a container's life after it", r.life("new", o.annotation))
	c.check("ends on SIGTERM", p.terminate())
}

// checkSlow expects a plugin that is too slow to answer with a failure in time.
func checkSlow(c *checks, o options) {
	r, err := newRuntime(o)
	if !c.check("the runtime starts", err) {
		return
	}
	defer func() { r.stop() }()
	p, err := startPlugin(o)
	if !c.check("the plugin starts", err) {
		return
	}
	defer func() { p.kill() }()
	c.check("registers and synchronizes", r.waitSync(1))
	for round := 0; round < 3; round++ {
		started := time.Now()
		_, err = r.create(fmt.Sprint("slow", round), "")
		took := time.Since(started)
		if err == nil {
			err = errors.New("the container was created without the plugin")
		} else if took >= o.timeout {
			err = fmt.Errorf("the answer took %v: %w", took, err)
		} else {
			fmt.Printf("measure refused_in_time ms=%.0f error=%q\n", ms(took), err)
			err = nil
		}
		c.check("a handler that is too slow fails the creation", err)
	}
	c.check("and the plugin stays connected", r.expectSyncs(1))
}

// checkPrelaunched lets the runtime start the plugin.
func checkPrelaunched(c *checks, o options) {
	dir := filepath.Join(filepath.Dir(o.socket), "plugins")
	conf := filepath.Join(filepath.Dir(o.socket), "conf.d")
	binary, err := os.ReadFile(o.prelaunched)
	if err == nil {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(conf, 0o755))
	}
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "77-peer"), binary, 0o755),
			os.WriteFile(filepath.Join(conf, "77-peer.conf"), []byte("annotate=from=conf.d\n"), 0o644))
	}
	if !c.check("install the plugin", err) {
		return
	}
	r, err := newRuntime(o)
	if !c.check("the runtime starts it and synchronizes", err) {
		return
	}
	c.check("a container's life, with settings from conf.d", r.life("first", "from"))
	r.stop()
	time.Sleep(500 * time.Millisecond)
	left, _ := filepath.Glob("/proc/[0-9]*/exe")
	var still error
	for _, link := range left {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
			still = fmt.Errorf("%s still runs", link)
		}
	}
	c.check("and nothing is left behind", still)
}

// storm creates containers in a row and prints how long the plugin took for each.
func storm(r *runtime, o options) error {
	times := make([]time.Duration, 0, o.creates)
	started := time.Now()
	for at := 0; at < o.creates; at++ {
		begin := time.Now()
		reply, err := r.create(fmt.Sprint("storm", at), "")
		if err != nil {
			return fmt.Errorf("container %d: %w", at, err)
		}
		times = append(times, time.Since(begin))
		if err := hasAnnotation(reply, o.annotation); err != nil {
			return fmt.Errorf("container %d: %w", at, err)
		}
	}
	all := time.Since(started)
	if len(times) == 0 {
		return nil
	}
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	quantile := func(q float64) float64 { return ms(times[int(q*float64(len(times)-1))]) }
	fmt.Printf("measure create count=%d p50_ms=%.3f p99_ms=%.3f p999_ms=%.3f max_ms=%.3f per_second=%.0f\n",
		len(times), quantile(0.5), quantile(0.99), quantile(0.999), quantile(1), float64(len(times))/all.Seconds())
	return nil
}

func gaveUp(err error, took, timeout time.Duration) error {
	if took < timeout || took > timeout+5*time.Second {
		return fmt.Errorf("after %v", took)
	}
	fmt.Printf("measure hanging_plugin ms=%.0f error=%v\n", ms(took), err)
	return deadIsClosed(err)
}

// A validating plugin that is gone fails one creation, any other none.
func deadIsClosed(err error) error {
	if err == nil || strings.Contains(err.Error(), "validator") {
		return nil
	}
	return err
}

func hasAnnotation(reply *api.CreateContainerResponse, key string) error {
	if key == "" {
		return nil
	}
	if _, ok := reply.GetAdjust().GetAnnotations()[key]; !ok {
		return fmt.Errorf("the plugin did not set the annotation %q", key)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

var ctx = context.Background()
