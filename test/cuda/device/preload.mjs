// node --import test/cuda/device/preload.mjs: a process whose libtorch has the pretended CUDA device, which must be there
// before voxtorch asks for CUDA, and whose CUDA kernels are the project's own, emulated. PRETENDED_CUDA_KERNELS names other
// libraries in place of those, with `:` between them; where it is empty, our operators are their CPU twins.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import { buildDevice, buildKernels, libtorch } from './build.mjs'

const root = fileURLToPath(new URL('../../..', import.meta.url))
if (isMainThread) {
  const loader = createRequire(import.meta.url)(join(root, 'build/voxtorch_loader.node'))
  const library = (name) => join(libtorch(), 'lib', name)
  if (existsSync(library('libtorch_global_deps.so'))) loader.open(library('libtorch_global_deps.so'), true)
  loader.open(library('libtorch_cpu.so'))
  loader.open(await buildDevice())
  const kernels = (process.env.PRETENDED_CUDA_KERNELS ?? (await buildKernels())).split(':').filter(Boolean)
  if (kernels.length > 0) {
    loader.open(library('libtorch.so'))
    createRequire(import.meta.url)(join(root, 'build/voxtorch.node'))
    for (const path of kernels) loader.open(path)
  }
}
