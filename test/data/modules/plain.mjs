// biome-ignore lint/style/noDefaultExport: users may write datasets so.
export default [10, 20, 30]
