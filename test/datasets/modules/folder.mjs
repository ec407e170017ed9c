/** The dataset that workerData names. */
export async function dataset({ source, options, library }) {
  const { loadDataset } = await import(library)
  return loadDataset(source, options)
}
