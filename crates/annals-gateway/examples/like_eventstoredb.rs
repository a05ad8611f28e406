//! Serves, for a comparison with recorded answers of a real server, the simulated EventStoreDB of the
//! tests.

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2113".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    annals_gateway::like_eventstoredb::Cluster::new(1).node(0).serve(listener).await
}
