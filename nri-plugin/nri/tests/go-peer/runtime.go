package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/log"
)

// quiet drops what the adaptation logs, unless NRI_PEER_VERBOSE is set.
type quiet struct{}

func (quiet) say(format string, args ...interface{}) {
	if os.Getenv("NRI_PEER_VERBOSE") != "" {
		fmt.Fprintf(os.Stderr, "adaptation: "+format+"\n", args...)
	}
}
func (q quiet) Debugf(_ context.Context, f string, a ...interface{}) {}
func (q quiet) Infof(_ context.Context, f string, a ...interface{})  { q.say(f, a...) }
func (q quiet) Warnf(_ context.Context, f string, a ...interface{})  { q.say(f, a...) }
func (q quiet) Errorf(_ context.Context, f string, a ...interface{}) { q.say(f, a...) }

// runtime is a container runtime without containers.
type runtime struct {
	o          options
	nri        *adaptation.Adaptation
	mu         sync.Mutex
	pods       []*api.PodSandbox
	containers []*api.Container
	syncs      int
	syncTook   time.Duration
	syncErr    error
	starting   bool
}

func newRuntime(o options) (*runtime, error) {
	log.Set(quiet{})
	adaptation.SetPluginRequestTimeout(o.timeout)
	r := &runtime{o: o}
	return r, r.start()
}

func (r *runtime) start() error {
	base := filepath.Dir(r.o.socket)
	nri, err := adaptation.New(r.o.runtime, r.o.version, r.synchronize, r.update,
		adaptation.WithSocketPath(r.o.socket),
		adaptation.WithPluginPath(filepath.Join(base, "plugins")),
		adaptation.WithPluginConfigPath(filepath.Join(base, "conf.d")))
	if err != nil {
		return err
	}
	r.nri = nri
	// Starting synchronizes the plugins that the runtime starts, even if there are none.
	r.setStarting(true)
	defer r.setStarting(false)
	return nri.Start()
}

func (r *runtime) setStarting(starting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting = starting
}

func (r *runtime) stop() { r.nri.Stop() }

func (r *runtime) restart() {
	r.nri.Stop()
	if err := r.start(); err != nil {
		fmt.Fprintln(os.Stderr, "go-peer: cannot start again:", err)
	}
}

// synchronize is what the adaptation calls for a new plugin.
func (r *runtime) synchronize(ctx context.Context, cb adaptation.SyncCB) error {
	r.mu.Lock()
	pods, containers := r.pods, r.containers
	r.mu.Unlock()
	begin := time.Now()
	_, err := cb(ctx, pods, containers)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.syncTook = time.Since(begin)
	switch {
	case err != nil:
		r.syncErr = err
	case !r.starting:
		r.syncs++
	}
	return err
}

func (r *runtime) update(_ context.Context, _ []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return nil, nil
}

func (r *runtime) lastSync() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.syncTook
}

// fill makes containers, ten to a pod, each with so many bytes in an annotation.
func (r *runtime) fill(count, bytes int) {
	long := string(make([]byte, bytes))
	var pods []*api.PodSandbox
	var containers []*api.Container
	for at := 0; at < count; at++ {
		if at%10 == 0 {
			pods = append(pods, pod(fmt.Sprint("old", at/10)))
		}
		c := container(fmt.Sprint("old", at), pods[len(pods)-1].Id)
		c.State = api.ContainerState_CONTAINER_RUNNING
		c.Pid = uint32(os.Getpid())
		c.Annotations["long"] = long
		containers = append(containers, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods, r.containers = pods, containers
}

// waitSync waits until plugins have been synchronized so often.
func (r *runtime) waitSync(count int) error {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		r.mu.Lock()
		syncs, err := r.syncs, r.syncErr
		r.syncErr = nil
		r.mu.Unlock()
		if syncs == count {
			// The adaptation adds the plugin right after this.
			time.Sleep(50 * time.Millisecond)
			return nil
		}
		if syncs > count {
			return fmt.Errorf("synchronized %d times, expected %d", syncs, count)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "go-peer: synchronizing failed:", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("no plugin within %v", patience)
}

func (r *runtime) expectSyncs(count int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.syncs != count {
		return fmt.Errorf("synchronized %d times, expected %d", r.syncs, count)
	}
	return nil
}

func pod(id string) *api.PodSandbox {
	return &api.PodSandbox{
		Id: id, Name: "pod-" + id, Namespace: "peer", Uid: "uid-" + id,
		Labels:      map[string]string{"app": "peer"},
		Annotations: map[string]string{},
		Linux:       &api.LinuxPodSandbox{CgroupParent: "/peer.slice"},
	}
}

func container(id, podID string) *api.Container {
	return &api.Container{
		Id: id, PodSandboxId: podID, Name: "c-" + id,
		State:       api.ContainerState_CONTAINER_CREATED,
		Labels:      map[string]string{"io.kubernetes.container.name": id},
		Annotations: map[string]string{"io.kubernetes.cri.image-name": "registry.example/peer:1"},
		Args:        []string{"sleep", "1"},
		Env:         []string{"PATH=/bin"},
		Mounts:      []*api.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux:       &api.LinuxContainer{CgroupsPath: "/peer.slice/" + id, Resources: &api.LinuxResources{}},
	}
}

// create asks the plugins about a new container.
func (r *runtime) create(id, long string) (*api.CreateContainerResponse, error) {
	c := container(id, "pod-"+id)
	if long != "" {
		c.Annotations["long"] = long
	}
	return r.createContainer(pod("pod-"+id), c)
}

// life is all that happens to a container and its pod.
func (r *runtime) life(id, annotation string) error { return r.lifeWith(id, annotation, "") }

func (r *runtime) lifeWith(id, annotation, long string) error {
	p, c := pod("pod-"+id), container(id, "pod-"+id)
	if long != "" {
		c.Annotations["long"] = long
	}
	if err := r.runPod(p); err != nil {
		return fmt.Errorf("RunPodSandbox: %w", err)
	}
	reply, err := r.createContainer(p, c)
	if err != nil {
		return fmt.Errorf("CreateContainer: %w", err)
	}
	if err := hasAnnotation(reply, annotation); err != nil {
		return err
	}
	return r.lifeAfterCreation(p, c)
}
