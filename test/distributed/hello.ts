// A TypeScript program for `voxtorch launch`: the type annotations would stop plain JavaScript.
const rank: string | undefined = process.env.RANK
console.log(`hello from ${rank} of ${process.env.WORLD_SIZE as string}`)
