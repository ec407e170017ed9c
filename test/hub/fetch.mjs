// A process of its own that fetches a repository: `node fetch.mjs <module> <repository> [options as JSON]`.
const { resolveModel } = await import(process.argv[2])
const options = JSON.parse(process.argv[4] ?? '{}')
try {
  console.log(await resolveModel(process.argv[3], options))
} catch (error) {
  console.log(`${error.name} ${error.reason ?? ''} ${error.message}`)
  process.exitCode = 1
}
