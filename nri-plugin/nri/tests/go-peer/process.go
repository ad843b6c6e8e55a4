package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// plugin is the plugin's process. What it writes goes where NRI_PEER_PLUGIN_LOG says, by default nowhere.
type plugin struct {
	cmd  *exec.Cmd
	done chan error
}

func startPlugin(o options) (*plugin, error) {
	p := &plugin{cmd: exec.Command(o.command[0], o.command[1:]...), done: make(chan error, 1)}
	if path := os.Getenv("NRI_PEER_PLUGIN_LOG"); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return p, err
		}
		defer file.Close()
		p.cmd.Stdout, p.cmd.Stderr = file, file
	}
	// Should this process die, its plugin does too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return p, err
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p, nil
}

func (p *plugin) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// freeze stops the process, and waits until each of its threads stands still: the signal alone lets them run on for a while.
func (p *plugin) freeze() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		if err != nil {
			return err
		}
		still := 0
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			// The state follows the name, which is in parentheses and may hold others.
			if at := strings.LastIndex(string(stat), ") "); err == nil && at >= 0 && strings.HasPrefix(string(stat)[at+2:], "T") {
				still++
			}
		}
		if still > 0 && still == len(threads) {
			return nil
		}
	}
	return errors.New("it does not stand still")
}

func (p *plugin) kill() {
	if p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	select {
	case err := <-p.done:
		p.done <- err
	case <-time.After(patience):
	}
}

func (p *plugin) terminate() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(patience):
		return errors.New("it still runs")
	}
}
