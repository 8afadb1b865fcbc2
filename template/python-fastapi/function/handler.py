from pydantic import BaseModel


class Greeting(BaseModel):
    name: str = "world"


class Answer(BaseModel):
    message: str


async def handle(greeting: Greeting) -> Answer:
    return Answer(message=f"Hello, {greeting.name}!")
