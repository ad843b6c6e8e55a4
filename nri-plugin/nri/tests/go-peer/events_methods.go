//go:build nri012

package main

import (
	"fmt"

	"github.com/containerd/nri/pkg/api"
)

func (r *runtime) runPod(p *api.PodSandbox) error {
	return r.nri.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: p})
}

func (r *runtime) createContainer(p *api.PodSandbox, c *api.Container) (*api.CreateContainerResponse, error) {
	return r.nri.CreateContainer(ctx, &api.CreateContainerRequest{Pod: p, Container: c})
}

func (r *runtime) lifeAfterCreation(p *api.PodSandbox, c *api.Container) error {
	if err := r.nri.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: p, Container: c}); err != nil {
		return fmt.Errorf("PostCreateContainer: %w", err)
	}
	if err := r.nri.StartContainer(ctx, &api.StartContainerRequest{Pod: p, Container: c}); err != nil {
		return fmt.Errorf("StartContainer: %w", err)
	}
	if err := r.nri.PostStartContainer(ctx, &api.PostStartContainerRequest{Pod: p, Container: c}); err != nil {
		return fmt.Errorf("PostStartContainer: %w", err)
	}
	update := &api.UpdateContainerRequest{Pod: p, Container: c, LinuxResources: &api.LinuxResources{}}
	if _, err := r.nri.UpdateContainer(ctx, update); err != nil {
		return fmt.Errorf("UpdateContainer: %w", err)
	}
	if err := r.nri.PostUpdateContainer(ctx, &api.PostUpdateContainerRequest{Pod: p, Container: c}); err != nil {
		return fmt.Errorf("PostUpdateContainer: %w", err)
	}
	if _, err := r.nri.UpdatePodSandbox(ctx, &api.UpdatePodSandboxRequest{Pod: p}); err != nil {
		return fmt.Errorf("UpdatePodSandbox: %w", err)
	}
	if err := r.nri.PostUpdatePodSandbox(ctx, &api.PostUpdatePodSandboxRequest{Pod: p}); err != nil {
		return fmt.Errorf("PostUpdatePodSandbox: %w", err)
	}
	if _, err := r.nri.StopContainer(ctx, &api.StopContainerRequest{Pod: p, Container: c}); err != nil {
		return fmt.Errorf("StopContainer: %w", err)
	}
	if err := r.nri.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: p, Container: c}); err != nil {
		return fmt.Errorf("RemoveContainer: %w", err)
	}
	if err := r.nri.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: p}); err != nil {
		return fmt.Errorf("StopPodSandbox: %w", err)
	}
	return r.nri.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: p})
}
