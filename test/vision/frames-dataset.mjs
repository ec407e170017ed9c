// Frames as a decoder gives them, in a DataLoader's worker: every byte says which sample and place it is of.
// biome-ignore lint/style/noDefaultExport: what a dataset's module exports
export default {
  length: 7,
  get(index) {
    const frames = Uint8Array.from({ length: 2 * 4 * 5 * 3 }, (_, i) => (index * 31 + i) % 256)
    return { frames, label: index }
  },
}
