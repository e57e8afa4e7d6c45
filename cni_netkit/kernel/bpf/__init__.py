"""BPF: libbpf, and our XDP program on NICs."""
