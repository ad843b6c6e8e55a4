package main

import (
	"errors"
	"os"
	"os/exec"
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
